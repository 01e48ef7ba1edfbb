"""Redis's users: each may do what it needs, on a real Valkey, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from app.infra.ids import STABLE, Release, RunId
from app.infra.keys import Keys
from components.kubernetes.redis_users import CLIENT_COMMANDS, SCRIPT_COMMANDS, users
from components.traffic import shadow_prefix
from tests.support.guarded_valkey import GuardedValkey
from tests.support.service import Service
from tests.support.waiting import eventually

APP = Path(__file__).parents[2] / "app"
_CALL = re.compile(r"redis\.p?call\(\s*['\"]([A-Za-z]+)['\"]")
KEDA_SCRIPT = """
local kind = redis.call('type', KEYS[1]).ok
local count = {zset = 'zcard', set = 'scard', list = 'llen', hash = 'hlen', none = 'llen'}
return redis.call(count[kind], KEYS[1])
"""
"""What KEDA's scaler `redis` does to size a key (2.20)."""


@pytest.fixture(scope="module")
def valkey() -> Iterator[GuardedValkey]:
    with GuardedValkey() as server:
        yield server


def called(folder: Path) -> set[str]:
    """Commands that the service's Lua scripts call."""
    found = {name.lower() for path in folder.rglob("*.lua") for name in _CALL.findall(path.read_text())}
    return found | {name.lower() for path in folder.rglob("*.py") for name in _CALL.findall(path.read_text())}


def test_scripts_may_call_what_they_call_and_nothing_else() -> None:
    """A new call in a script is refused in production only: here it shows at once. A call that went is taken away."""
    assert called(APP) == set(SCRIPT_COMMANDS)


def test_no_script_calls_what_no_list_can_know() -> None:
    """A command's name that a script puts together is checked by nobody."""
    for path in APP.rglob("*.lua"):
        assert len(re.findall(r"redis\.p?call\(", path.read_text())) == len(_CALL.findall(path.read_text())), path


def test_each_command_of_the_modules_occurs_in_one() -> None:
    source = "\n".join(path.read_text() for path in APP.rglob("*.py"))
    unused = [name for name in CLIENT_COMMANDS if not re.search(rf"\.{name}(_iter)?\(", source)]
    assert not unused, f"take them out of CLIENT_COMMANDS: {unused}"


def test_the_file_holds_no_password_and_no_user_without_rules() -> None:
    lines = users(exporter=True).splitlines()
    assert [line.split()[1] for line in lines] == ["default", "app", "scaler", "backup", "probe", "exporter"]
    assert lines[0].split()[:4] == ["user", "default", "reset", "off"]
    for line in lines:
        assert "-@all" in line.split(), line
        assert not {"+@all", "~*", "allkeys", "allcommands"} & set(line.split()), line


async def test_the_service_does_all_its_work_without_a_refusal() -> None:
    """Answer, stream, cancel, ask a person, fail, schedule, list, export, delete: nothing of it is refused."""
    with GuardedValkey(aof=True) as server, Service(valkey=server) as service:
        server.refusals()
        async with service.client() as http:
            answer = (await http.post("/chat", json={"message": "hello"})).json()
            assert answer["status"] == "success"
            thread = f"/threads/{answer['thread_id']}"
            again = {"message": "and again", "thread_id": answer["thread_id"]}
            assert (await http.post("/chat", json=again)).json()["status"] == "success"
            async with http.stream("POST", "/api/stream", json={"message": "hello"}) as streamed:
                assert "event: end" in (await streamed.aread()).decode()
            assert (await http.post("/chat", json={"message": "x", "graph": "asking"})).json()[
                "status"
            ] == "interrupted"
            assert (await http.post("/chat", json={"message": "x", "graph": "failing"})).status_code >= 500

            run = (await http.post("/chat/async", json={"message": "x", "graph": "slow"})).json()

            async def status() -> str:
                return str((await http.get(f"/runs/{run['run_id']}")).json()["status"])

            await eventually(status, until=lambda found: found == "running")
            assert (await http.post(f"/runs/{run['run_id']}/cancel")).status_code == 202
            await eventually(status, until=lambda found: found == "cancelled")

            cron = (await http.post("/crons", json={"message": "tick", "schedule": "0 0 1 1 *"})).json()
            assert (await http.delete(f"/crons/{cron['cron_id']}")).status_code == 204
            assert (await http.get(thread)).status_code == 200
            assert (await http.get(f"{thread}/history")).status_code == 200
            assert (await http.delete(thread)).status_code == 204
            assert (await http.get("/readiness")).status_code == 200
        refusals = server.refusals()
        assert refusals == [], f"refused: {[(one['username'], one['reason'], one['object']) for one in refusals]}"


def dry_run(server: GuardedValkey, user: str, *command: Any) -> bool:
    with redis.Redis.from_url(server.admin_url) as admin:
        return bool(admin.execute_command("ACL", "DRYRUN", user, *command) == b"OK")


@pytest.mark.parametrize("keys", [Keys(), Keys(shadow_prefix("next"))], ids=["ordinary", "shadow"])
def test_the_app_reaches_its_keys_under_every_prefix(valkey: GuardedValkey, keys: Keys) -> None:
    """A shadow release logs in as the same user; its keys begin with its prefix."""
    for key in (keys.queue(STABLE), keys.queue(Release("canary")), keys.run(RunId("r")), keys.states, keys.first_key):
        assert dry_run(valkey, "app", "SET", key, "1"), key
    assert dry_run(valkey, "app", "PUBLISH", keys.ended, "r")
    assert dry_run(valkey, "scaler", "EVAL", KEDA_SCRIPT, 1, keys.queue(STABLE))
    assert dry_run(valkey, "scaler", "ZCARD", keys.queue(Release("canary")))


@pytest.mark.parametrize(
    ("user", "command"),
    [
        ("app", ("FLUSHALL",)),
        ("app", ("CONFIG", "GET", "*")),
        ("app", ("KEYS", "*")),
        ("app", ("ACL", "LIST")),
        ("app", ("SET", "another-programs-key", "1")),
        ("app", ("PUBLISH", "another-channel", "1")),
        ("scaler", ("GET", "{agent-tasks}:first-key")),
        ("scaler", ("HGETALL", "{agent-tasks}:run:1")),
        ("scaler", ("ZADD", "agent-tasks", "1", "x")),
        ("backup", ("GET", "agent-tasks")),
        ("backup", ("FLUSHALL",)),
        ("exporter", ("GET", "agent-tasks")),
        ("exporter", ("CONFIG", "GET", "*")),
        ("probe", ("INFO",)),
        ("probe", ("GET", "agent-tasks")),
    ],
)
def test_nobody_may_do_more(valkey: GuardedValkey, user: str, command: tuple[str, ...]) -> None:
    assert not dry_run(valkey, user, *command)


def test_kedas_script_counts_a_queue_and_can_change_nothing(valkey: GuardedValkey) -> None:
    """EVAL counts as a write, so the scaler has its keys for writing; but what its script calls must be a read."""
    with redis.Redis.from_url(valkey.admin_url) as admin:
        admin.zadd("agent-tasks", {"a": 1, "b": 2, "c": 3})
    with redis.Redis.from_url(valkey.url_of("scaler")) as scaler:
        assert scaler.eval(KEDA_SCRIPT, 1, "agent-tasks") == 3
        assert scaler.eval(KEDA_SCRIPT, 1, "{agent-tasks}:q:nobody") == 0
        with pytest.raises(redis.exceptions.ResponseError, match="no permissions to run the 'del' command"):
            scaler.eval("return redis.call('del', KEYS[1])", 1, "agent-tasks")
        with pytest.raises(redis.exceptions.NoPermissionError):
            scaler.eval(KEDA_SCRIPT, 1, "{agent-tasks}:states")
