"""The command line `slipway` on a real Valkey: what it prints, what it asks, how it exits."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import re
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from typer.testing import CliRunner

from app.cli.main import app
from app.infra.auth import new_key
from app.infra.ids import STABLE, RunId, TenantId, UserId
from app.infra.keys import Keys
from app.infra.settings import RunSettings, load, settings
from app.memory.embeddings import open_embeddings
from app.memory.memories import Memories
from app.memory.store import open_store
from app.runs.ledger import RunLedger
from app.runs.model import Failure, Run, Status
from tests.integration.conftest import TENANT, new_run
from tests.support.valkey import ValkeyServer, free_port
from tests.support.vector_store import VectorStore

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True, slots=True)
class Slipway:
    """Runs `slipway` inside the test's process, which is faster than a new one by a second; stdin is no terminal."""

    monkeypatch: pytest.MonkeyPatch

    async def __call__(self, *words: str, **variables: str) -> Done:
        with self.monkeypatch.context() as environment:
            for name, value in variables.items():
                environment.setenv(name, value)
            settings.cache_clear()
            result = await asyncio.to_thread(CliRunner().invoke, app, list(words))
        if not isinstance(result.exception, SystemExit | None):
            raise result.exception
        return Done(result.exit_code, result.stdout, result.stderr)


@pytest.fixture
def slipway(client: Any, valkey_server: ValkeyServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Slipway]:
    """On an empty Valkey."""
    monkeypatch.setenv("REDIS_URL", valkey_server.url)
    monkeypatch.setenv("ENVIRONMENT", "production")
    monkeypatch.delenv("QDRANT_URL", raising=False)
    # The test's process has logging of its own; one test below sees to it that the real one leaves stdout alone.
    monkeypatch.setattr("app.cli.session._log_to_stderr", lambda: None)
    monkeypatch.setattr("app.runs.administration.desk.SETTLE_SECONDS", 0.0)
    with capture_logs():
        yield Slipway(monkeypatch)
    settings.cache_clear()


async def process(url: str, *words: str, stdin: int = asyncio.subprocess.DEVNULL) -> asyncio.subprocess.Process:
    """`slipway` as its real process."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "app.cli",
        *words,
        cwd=ROOT,
        env={**kept, "ENVIRONMENT": "production", "REDIS_URL": url},
        stdin=stdin,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def failed_run(ledger: RunLedger, *, tenant: str = TENANT) -> Run:
    """A dead letter."""
    accepted = await ledger.accept(new_run(tenant=tenant))
    (claim,) = (await ledger.claim("w", 1)).runs
    run = await ledger.get(accepted.run_id)
    result = {**run.identity, "error": {"kind": "attempts_exhausted"}}
    await ledger.complete(claim, run, Status.ERROR, result, failure=Failure("ConnectionError", "checkpoint-7"))
    return await ledger.get(accepted.run_id)


async def test_runs_are_listed_newest_first_and_filtered(slipway: Slipway, ledger: RunLedger) -> None:
    failed = await failed_run(ledger)
    other = await ledger.accept(new_run(tenant="umbrella"))
    newest = await ledger.accept(new_run(graph="research"))
    found = (await slipway("runs", "list", "--json")).json
    assert [run["run_id"] for run in found] == [newest.run_id, other.run_id, failed.run_id]
    assert (found[2]["status"], found[2]["error"], found[2]["last_error"], found[2]["attempt"]) == (
        "error",
        "attempts_exhausted",
        "ConnectionError",
        1,
    )
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", found[2]["ended_at"])

    for words, wanted in (
        (["--tenant", "umbrella"], [other.run_id]),
        (["--status", "pending"], [newest.run_id, other.run_id]),
        (["--graph", "research"], [newest.run_id]),
        (["--limit", "1"], [newest.run_id]),
        (["--release", "canary"], []),
    ):
        assert [run["run_id"] for run in (await slipway("runs", "list", "--json", *words)).json] == wanted, words

    table = (await slipway("runs", "list")).out.splitlines()
    assert table[0].split() == ["RUN", "THREAD", "TENANT", "GRAPH", "RELEASE", "STATUS", "ATTEMPT", "ACCEPTED", "ERROR"]
    assert table[3].split()[0] == failed.run_id
    assert "attempts_exhausted" in table[3]


async def test_a_listing_passes_over_what_has_expired(
    slipway: Slipway, ledger: RunLedger, client: Any, keys: Keys
) -> None:
    """The index remembers a run for longer than its record is kept."""
    gone, kept = await ledger.accept(new_run()), await ledger.accept(new_run())
    await client.delete(keys.run(gone.run_id))
    assert [run["run_id"] for run in (await slipway("runs", "list", "--json")).json] == [kept.run_id]


async def test_a_run_is_shown_with_its_place_its_failure_and_its_events(slipway: Slipway, ledger: RunLedger) -> None:
    failed = await failed_run(ledger)
    shown = (await slipway("runs", "show", failed.run_id)).out
    for line in ("reason       attempts_exhausted", "last error   ConnectionError", "checkpoint   checkpoint-7"):
        assert line in shown
    assert "dead letter  yes" in shown
    assert "hello" not in shown, "what people wrote is shown only when it is asked for"
    whole = (await slipway("runs", "show", failed.run_id, "--json")).json
    assert whole["input"]["messages"][0]["content"] == "hello"
    assert [event["event"] for event in whole["events"]] == ["metadata", "end"]

    first, second = await ledger.accept(new_run()), await ledger.accept(new_run())
    thread_id = (await ledger.get(first.run_id)).thread_id
    behind = await ledger.accept(new_run(thread_id))
    place = (await slipway("runs", "show", second.run_id, "--json")).json["place"]
    assert (place["state"], place["position"]) == ("pending", 2)
    assert (await slipway("runs", "show", behind.run_id, "--json")).json["place"]["state"] == "waiting"
    (claim,) = (await ledger.claim("w", 1)).runs
    place = (await slipway("runs", "show", claim.run_id, "--json")).json["place"]
    assert (place["state"], place["position"]) == ("running", None)
    assert place["lease_ends_at"]


async def test_what_is_not_there_exits_with_1_and_says_so_on_stderr(slipway: Slipway) -> None:
    """A script must not take an error for an answer."""
    for words in (
        ["runs", "show", "nobody"],
        ["runs", "cancel", "nobody"],
        ["runs", "replay", "nobody"],
        ["dead-letter", "show", "nobody"],
        ["dead-letter", "replay", "nobody"],
        ["dead-letter", "drop", "nobody", "--yes"],
        ["threads", "show", "nobody"],
        ["threads", "export", "nobody"],
        ["threads", "delete", "nobody", "--yes"],
        ["tenants", "delete", "nobody", "--yes"],
    ):
        done = await slipway(*words)
        assert (done.code, done.out) == (1, ""), words
        assert "error: there is no" in done.err, done.err
        assert "nobody" in done.err
    empty = await slipway("runs", "list")
    assert (empty.code, empty.out, empty.err.strip()) == (0, "", "no runs"), "an empty list is no error"


async def test_a_wrong_command_or_setting_exits_with_2(slipway: Slipway) -> None:
    for words, part in (
        (["runs", "show", "no such id"], "an id has"),
        (["runs", "list", "--status", "lost"], "lost"),
        (["dead-letter", "replay"], "--all"),
        (["dead-letter", "drop", "some", "--all", "--yes"], "--all"),
        (["nonsense"], "nonsense"),
    ):
        done = await slipway(*words)
        assert done.code == 2, (words, done)
        assert part in done.err
    wrong = await slipway("queue", REDIS_URL="http://:hush@nowhere")
    assert wrong.code == 2
    assert "REDIS_URL" in wrong.err
    assert "hush" not in wrong.err


async def test_the_process_keeps_its_log_out_of_the_answer(
    client: Any, ledger: RunLedger, valkey_server: ValkeyServer
) -> None:
    """What an administrator does is logged; a script that reads stdout must not meet those lines."""
    failed = await failed_run(ledger)
    command = await process(valkey_server.url, "dead-letter", "replay", failed.run_id, "--json")
    out, _ = await asyncio.wait_for(command.communicate(), 60)
    assert (command.returncode, json.loads(out)["replayed"]) == (0, failed.run_id)


async def test_the_process_says_what_is_wrong_and_exits_with_1(client: Any, valkey_server: ValkeyServer) -> None:
    """The real one: neither a traceback nor the password of a Redis that is away; stdout stays empty for scripts."""
    for url, part in ((f"redis://:hush@127.0.0.1:{free_port()}/0", "REDIS_URL"), (valkey_server.url, "nobody")):
        command = await process(url, "runs", "show", "nobody")
        out, err = await asyncio.wait_for(command.communicate(), 60)
        assert (command.returncode, out) == (1, b"")
        assert part in err.decode()
        assert len(err.splitlines()) == 1
        assert b"hush" not in err


async def test_a_run_is_cancelled(slipway: Slipway, ledger: RunLedger) -> None:
    accepted = await ledger.accept(new_run())
    done = await slipway("runs", "cancel", accepted.run_id)
    assert (done.code, done.out) == (0, f"run {accepted.run_id} has ended: cancelled\n")
    running = await ledger.accept(new_run())
    await ledger.claim("w", 1)
    assert "is being cancelled" in (await slipway("runs", "cancel", running.run_id)).out


async def test_a_dead_letter_is_replayed_once(slipway: Slipway, ledger: RunLedger) -> None:
    """Two people look at the same list; the second must not start the same work again."""
    failed = await failed_run(ledger)
    (letter,) = (await slipway("dead-letter", "list", "--json")).json
    assert (letter["run_id"], letter["error"], letter["checkpoint_id"]) == (
        failed.run_id,
        "attempts_exhausted",
        "checkpoint-7",
    )
    done = await slipway("dead-letter", "replay", failed.run_id, "--json")
    replay = await ledger.get(RunId(done.json["run_id"]))
    assert (replay.status, replay.thread_id, replay.continues) == (Status.PENDING, failed.thread_id, (failed.run_id,))
    assert replay.input == failed.input, "where there is no checkpoint of its own it begins anew"
    assert (await slipway("dead-letter", "list", "--json")).json == []
    again = await slipway("runs", "replay", failed.run_id)
    assert again.code == 1
    assert replay.run_id in again.err
    assert (await slipway("runs", "show", failed.run_id, "--json")).json["replayed_by"] == replay.run_id


async def test_only_what_failed_is_replayed_unless_it_is_to_begin_anew(slipway: Slipway, ledger: RunLedger) -> None:
    accepted = await ledger.accept(new_run())
    unfinished = await slipway("runs", "replay", accepted.run_id, "--again")
    assert unfinished.code == 1
    assert "has not ended" in unfinished.err
    (claim,) = (await ledger.claim("w", 1)).runs
    run = await ledger.get(accepted.run_id)
    await ledger.complete(claim, run, Status.SUCCESS, run.identity)
    refused = await slipway("runs", "replay", run.run_id)
    assert refused.code == 1
    assert "--again" in refused.err
    anew = await slipway("runs", "replay", run.run_id, "--again", "--json")
    fresh = await ledger.get(RunId(anew.json["run_id"]))
    assert (fresh.input, fresh.continues, fresh.effects_root) == (run.input, (), fresh.run_id)
    assert "anew" in (await slipway("runs", "replay", run.run_id, "--again")).out


async def test_all_dead_letters_are_replayed_and_those_that_cannot_be_stay(
    slipway: Slipway, ledger: RunLedger, client: Any, keys: Keys
) -> None:
    first, second = await failed_run(ledger), await failed_run(ledger)
    without_thread = await failed_run(ledger, tenant="umbrella")
    await client.delete(keys.thread(without_thread.thread_id))
    done = await slipway("dead-letter", "replay", "--all", "--yes", "--json")
    assert done.code == 1, "one was refused"
    outcomes = {one["replayed"]: one for one in done.json}
    assert list(outcomes) == [first.run_id, second.run_id, without_thread.run_id], "in the order in which they failed"
    assert outcomes[first.run_id]["run_id"]
    assert outcomes[without_thread.run_id]["run_id"] is None
    assert "there is no thread" in outcomes[without_thread.run_id]["error"]
    (left,) = (await slipway("dead-letter", "list", "--json")).json
    assert left["run_id"] == without_thread.run_id


async def test_dropped_dead_letters_can_still_be_read(slipway: Slipway, ledger: RunLedger) -> None:
    first, _, third = [await failed_run(ledger) for _ in range(3)]
    other = await failed_run(ledger, tenant="umbrella")
    assert (await slipway("dead-letter", "drop", first.run_id, "--yes")).code == 0
    assert (await slipway("dead-letter", "drop", first.run_id, "--yes")).code == 1, "it is none any more"
    done = await slipway("dead-letter", "drop", "--all", "--tenant", TENANT, "--yes", "--json")
    assert done.json == {"dropped": 2}
    (left,) = (await slipway("dead-letter", "list", "--json")).json
    assert left["run_id"] == other.run_id
    assert (await ledger.get(third.run_id)).status is Status.ERROR


async def test_what_destroys_asks_first(slipway: Slipway, ledger: RunLedger, valkey_server: ValkeyServer) -> None:
    """On a terminal by a question, whose default is no; without one it wants --yes and touches nothing."""
    run = await failed_run(ledger)
    for words in (
        ["threads", "delete", run.thread_id],
        ["tenants", "delete", TENANT],
        ["dead-letter", "drop", run.run_id],
        ["dead-letter", "replay", "--all"],
    ):
        done = await slipway(*words)
        assert done.code == 1, words
        assert "--yes" in done.err
    for answer, code in ((b"\n", 1), (b"y\n", 0)):
        person, terminal = pty.openpty()
        try:
            command = await process(valkey_server.url, "threads", "delete", run.thread_id, stdin=terminal)
            os.write(person, answer)
            out, err = await asyncio.wait_for(command.communicate(), 60)
        finally:
            os.close(person)
            os.close(terminal)
        assert command.returncode == code, (answer, out, err)
        assert b"for good?" in err
    assert (await slipway("threads", "show", run.thread_id)).code == 1


async def test_a_thread_is_shown_exported_and_deleted(slipway: Slipway, ledger: RunLedger) -> None:
    run, other = await failed_run(ledger), await failed_run(ledger, tenant="umbrella")
    active = await ledger.accept(new_run(run.thread_id))
    listed = (await slipway("threads", "list", "--json")).json
    assert [(thread["thread_id"], thread["status"]) for thread in listed] == [
        (run.thread_id, "busy"),
        (other.thread_id, "idle"),
    ]
    assert run.thread_id not in (await slipway("threads", "list", "--tenant", "umbrella")).out
    shown = (await slipway("threads", "show", run.thread_id, "--json")).json
    assert (shown["status"], shown["active_run_id"], shown["runs"]) == ("busy", active.run_id, 2)
    assert run.run_id in (await slipway("threads", "show", run.thread_id)).out
    whole = (await slipway("threads", "export", run.thread_id)).json
    assert whole["thread"]["tenant"] == TENANT
    assert whole["messages"] == [], "no checkpoint yet"
    assert [one["run_id"] for one in whole["runs"]] == [run.run_id, active.run_id]
    assert whole["runs"][0]["input"]["messages"][0]["content"] == "hello"
    done = await slipway("threads", "delete", run.thread_id, "--yes", "--json")
    assert done.json == {"threads": 1, "runs": 2, "crons": 0}
    assert [one["run_id"] for one in (await slipway("runs", "list", "--json")).json] == [other.run_id]
    assert len((await slipway("threads", "list", "--json")).json) == 1


async def test_the_queue_is_counted_by_what_runs_and_what_waits(
    slipway: Slipway, client: Any, keys: Keys, canary: RunLedger
) -> None:
    ledger = RunLedger(client, keys, RunSettings(lease_seconds=60), STABLE)
    await failed_run(ledger)
    first, *_ = [await ledger.accept(new_run()) for _ in range(3)]
    await ledger.accept(new_run((await ledger.get(first.run_id)).thread_id))
    await canary.accept(new_run(tenant="umbrella"))
    await ledger.claim("w", 1)
    whole = (await slipway("queue", "--json")).json
    by_name = {release["release"]: release for release in whole["releases"]}
    assert (by_name[STABLE]["due"], by_name[STABLE]["running"], by_name[STABLE]["pausing"]) == (2, 1, 0)
    assert by_name[STABLE]["oldest_due_seconds"] > 0
    assert by_name[STABLE]["workers_seen_seconds"] < 60
    assert (by_name["canary"]["due"], by_name["canary"]["workers_seen_seconds"]) == (1, None), "nobody will take it"
    assert (whole["behind"], whole["later"], whole["dead"], whole["complete"]) == (1, 0, 1, True)
    of_one = (await slipway("queue", "--tenant", "umbrella", "--json")).json
    assert {release["release"]: release["due"] for release in of_one["releases"]} == {"canary": 1, STABLE: 0}
    assert (of_one["behind"], of_one["dead"]) == (0, 0)
    mine = (await slipway("queue", "--tenant", TENANT, "--json")).json["releases"][-1]
    assert (mine["release"], mine["due"], mine["running"]) == (STABLE, 2, 1)
    table = (await slipway("queue")).out
    assert table.splitlines()[0].split()[:4] == ["RELEASE", "DUE", "RUNNING", "PAUSING"]


async def test_a_tenant_is_deleted_only_together_with_its_memories(
    slipway: Slipway, ledger: RunLedger, client: Any, keys: Keys
) -> None:
    """A store that is away must not keep what the tenant asked to be forgotten, unseen."""
    run = await failed_run(ledger, tenant="umbrella")
    key = new_key(tenant="umbrella")
    with VectorStore() as store:
        variables = {"QDRANT_URL": store.url}
        store.kill()
        away = await slipway("tenants", "delete", "umbrella", "--yes", **variables)
        assert away.code == 1
        assert "memories cannot be deleted" in away.err
        assert "--keep-memories" in away.err
        assert (await ledger.get(run.run_id)).status is Status.ERROR, "nothing was touched"
        store.start()
        await remember(store.url, "umbrella", "ada", "likes green")
        await remember(store.url, "umbrella", "bob", "likes blue")
        await remember(store.url, TENANT, "ada", "likes red")
        await client.hset(keys.api_key(key.key_id), mapping=key.record)
        done = await slipway("tenants", "delete", "umbrella", "--yes", "--json", **variables)
        assert done.json == {"threads": 1, "runs": 1, "crons": 0, "api_keys": 1, "memories": 2}
        assert await remembered(store.url, "umbrella", "ada") == []
        assert await remembered(store.url, TENANT, "ada") == ["likes red"]


@contextlib.asynccontextmanager
async def memories_at(url: str) -> AsyncIterator[Memories]:
    """The memories in the store at `url`, as the service opens them."""
    known = load(None)
    known = known.model_copy(update={"tools": known.tools.model_copy(update={"qdrant_url": url})})
    embeddings = open_embeddings(known)
    store = open_store(known, embeddings)
    assert store is not None
    yield Memories(store)
    await store.close()
    await embeddings.close()


async def remember(url: str, tenant: str, user: str, text: str) -> None:
    async with memories_at(url) as memories:
        await memories.remember(TenantId(tenant), UserId(user), text)


async def remembered(url: str, tenant: str, user: str) -> list[str]:
    async with memories_at(url) as memories:
        return [memory.text for memory in await memories.list(TenantId(tenant), UserId(user))]
