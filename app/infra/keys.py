"""The one place where a Redis key is formatted.

Every key bears the hash tag `{agent-tasks}`: one slot, so that one Lua script may touch a run's queue entry,
events, checkpoints and thread together, on a Redis Cluster too.

| key                                 | type   | written by        | lives                       |
|-------------------------------------|--------|-------------------|-----------------------------|
| agent-tasks                         | zset   | ledger            | while it has runs           |
| {agent-tasks}:q:<release>           | zset   | ledger            | while it has runs           |
| {agent-tasks}:epochs                | hash   | ledger            | a field per unfinished run  |
| {agent-tasks}:states                | hash   | ledger            | a field per unfinished run  |
| {agent-tasks}:attempts              | hash   | ledger            | a field per unfinished run  |
| {agent-tasks}:releases              | hash   | ledger            | a field per release         |
| {agent-tasks}:claim:<worker>        | hash   | ledger            | a lease                     |
| {agent-tasks}:wake:<release>        | list   | ledger            | until a worker wakes        |
| {agent-tasks}:later                 | zset   | ledger            | while runs are put off      |
| {agent-tasks}:run:<run>             | hash   | ledger            | run retention after its end |
| {agent-tasks}:events:<run>          | stream | event log         | event retention             |
| {agent-tasks}:effects:<run>         | hash   | effect journal    | as its run, or its question |
| {agent-tasks}:idem:<tenant>:<hash>  | string | ledger            | idempotency window          |
| {agent-tasks}:tenants               | set    | ledger            | until the tenant is deleted |
| {agent-tasks}:runs:<tenant>         | zset   | ledger            | members: run retention      |
| {agent-tasks}:threads:<tenant>      | zset   | ledger            | members: thread retention   |
| {agent-tasks}:dead:<tenant>         | zset   | ledger            | members: run retention      |
| {agent-tasks}:crons                 | zset   | crons             | until the cron is deleted   |
| {agent-tasks}:crons:<tenant>        | set    | crons             | until the cron is deleted   |
| {agent-tasks}:cron:<cron>           | hash   | crons             | until deleted               |
| {agent-tasks}:removing              | zset   | removal           | while threads are removed   |
| {agent-tasks}:thread:<thread>       | hash   | ledger            | thread retention            |
| {agent-tasks}:thread:<thread>:runs  | zset   | ledger            | thread retention            |
| {agent-tasks}:thread:<thread>:wait  | list   | ledger            | while runs wait             |
| {agent-tasks}:cp:<thread>:…         | several| checkpoint saver  | thread retention            |
| {agent-tasks}:cp-run:<run>          | set    | checkpoint saver  | thread retention            |
| {agent-tasks}:cp-threads            | zset   | checkpoint saver  | members: thread retention   |
| {agent-tasks}:key:<key id>          | hash   | auth              | until revoked               |
| {agent-tasks}:first-key             | string | bootstrap         | for good                    |
| {agent-tasks}:probe                 | string | readiness         | a minute                    |
"""

from __future__ import annotations

from urllib.parse import quote

from app.infra.ids import STABLE, Release, RunId, TenantId, ThreadId

TAG = "{agent-tasks}"
"""The hash tag of every key. A shadow release puts its own prefix before it (see `Keys`)."""


class Keys:
    """Names of keys under one prefix: "" for ordinary releases, `shadow:<release>:` for a shadow one."""

    def __init__(self, prefix: str = "") -> None:
        self._root = f"{prefix}{TAG}"
        self._prefix = prefix
        self.epochs = f"{self._root}:epochs"
        self.states = f"{self._root}:states"
        self.attempts = f"{self._root}:attempts"
        self.releases = f"{self._root}:releases"
        self.first_key = f"{self._root}:first-key"
        """Id of the first key that was registered: a later start does not bring it back once it is revoked."""
        self.later = f"{self._root}:later"
        """Runs due more than a minute from now, by their moment in ms: what stands in the queue adds workers."""
        self.tenants = f"{self._root}:tenants"
        self.removing = f"{self._root}:removing"
        """Threads being deleted, by the moment in ms at which their deletion began, or was last gone on with."""
        self.crons = f"{self._root}:crons"
        """Crons by their next moment in ms."""
        self.checkpoint_threads = f"{self._root}:cp-threads"
        """Threads that have checkpoints, by the end of their life in unix seconds."""
        self.probe = f"{self._root}:probe"
        self.ended = f"{self._root}:ended"
        """Pub/sub channel: the id of each run that ends."""

    def queue(self, release: Release) -> str:
        """A release's queue. That of `stable` is called as the hash tag reads, which puts it into the same slot."""
        return "agent-tasks" if release == STABLE and not self._prefix else f"{self._root}:q:{release}"

    def wake(self, release: Release) -> str:
        return f"{self._root}:wake:{release}"

    def claim(self, worker: str) -> str:
        return f"{self._root}:claim:{worker}"

    def run(self, run_id: RunId) -> str:
        return f"{self._root}:run:{run_id}"

    def events(self, run_id: RunId) -> str:
        return f"{self._root}:events:{run_id}"

    def grown(self, run_id: RunId) -> str:
        """Pub/sub channel, heard by who follows the run: its event stream has grown."""
        return f"{self._root}:grown:{run_id}"

    def idempotency(self, tenant: TenantId, digest: str) -> str:
        return f"{self._root}:idem:{tenant}:{digest}"

    def thread(self, thread_id: ThreadId) -> str:
        return f"{self._root}:thread:{thread_id}"

    def thread_runs(self, thread_id: ThreadId) -> str:
        return f"{self._root}:thread:{thread_id}:runs"

    def thread_waiting(self, thread_id: ThreadId) -> str:
        return f"{self._root}:thread:{thread_id}:wait"

    def checkpoints(self, thread_id: ThreadId) -> str:
        """Root of a thread's checkpoint keys; the saver adds its own segments after a colon."""
        return f"{self._root}:cp:{thread_id}"

    def checkpoint_run(self, run_id: str) -> str:
        """Threads in which a run has made checkpoints. The id comes from a graph's metadata, hence the quoting."""
        return f"{self._root}:cp-run:{quote(run_id, safe='')}"

    def effects(self, root: RunId) -> str:
        """Journal of a run and of all that go on with its work: answers of a person, replays (`Run.effects_root`)."""
        return f"{self._root}:effects:{root}"

    def runs_of(self, tenant: TenantId) -> str:
        """The tenant's runs by the moment of acceptance in ms; the record of a member may have expired."""
        return f"{self._root}:runs:{tenant}"

    def threads_of(self, tenant: TenantId) -> str:
        """The tenant's threads by their last change in ms; a member may have expired."""
        return f"{self._root}:threads:{tenant}"

    def dead(self, tenant: TenantId) -> str:
        """Dead letters: runs that failed for good, by the moment of their end in ms."""
        return f"{self._root}:dead:{tenant}"

    def cron(self, cron_id: str) -> str:
        return f"{self._root}:cron:{cron_id}"

    def crons_of(self, tenant: TenantId) -> str:
        return f"{self._root}:crons:{tenant}"

    def api_key(self, key_id: str) -> str:
        return f"{self._root}:key:{key_id}"
