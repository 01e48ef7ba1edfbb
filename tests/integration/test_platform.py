"""The local platform as Pulumi brings it up: two releases behind Envoy, changed, hurt, repaired and taken down.

One stack for the whole file, on a copy of the repository, with a graph that needs no model. Tests build on each other
in the order they stand in: an `up` takes seconds, a platform of its own for each would take minutes.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.benchmarks.bench_platform import pss
from tests.integration.test_api import sse
from tests.support.service import ROOT
from tools.stack import Stack

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(shutil.which("pulumi") is None, reason="pulumi is not on PATH; `make test` puts it there"),
]

COPIED = ("app", "components", "stacks", "tools", "tests/support", "docs", "langgraph.json", "Pulumi.yaml", "uv.lock")
WARM_SECONDS = 15
IDLE_MIB = 500
SECRET = "sk-a-secret-that-must-not-show"
BINOMIAL_999 = range(69, 133)
"""Of 1,000 requests at 10 %, how many fall to the canary in 99.9 of 100 experiments."""


class Platform:
    """The stack `test` of a copy of the repository."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for part in COPIED:
            source, target = ROOT / part, folder / part
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(source, target)
        self.configure(stable={"weight": 90}, canary={"weight": 10, "pin": {}, "env": {"LOG_LEVEL": "WARNING"}})
        self.stack = Stack("test", repository=folder)
        self.outputs: dict[str, Any] = {}

    def configure(self, **releases: dict[str, Any]) -> None:
        """Write the stack's configuration: what a person edits before `pulumi up`."""
        config = {
            "slipway:releases": releases,
            "slipway:openaiBaseUrl": "http://127.0.0.1:9/v1",
            "slipway:env": {
                "LANGGRAPH_CONFIG": str(self.folder / "tests/support/langgraph.json"),
                "DEFAULT_GRAPH": "instant",
                "DRAIN_SECONDS": 5,
            },
        }
        (self.folder / "Pulumi.test.yaml").write_text(yaml.safe_dump({"config": config}))

    def up(self) -> dict[str, int]:
        """`pulumi up`; how many resources took which step, those that stayed the same left out."""
        self.stack.create()
        self.stack.operate("up", "--yes", "--skip-preview", "--suppress-outputs")
        self.outputs = self.stack.outputs(show_secrets=True)
        return {step: count for step, count in self.stack.last_changes().items() if step != "same" and count}

    def refresh(self) -> dict[str, int]:
        self.stack.operate("refresh", "--yes", "--skip-preview", "--suppress-outputs")
        return {step: count for step, count in self.stack.last_changes().items() if step != "same" and count}

    @property
    def url(self) -> str:
        return str(self.outputs["serviceUrl"])

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.outputs['apiKey']}"}

    def chat(self, **more: str) -> dict[str, Any]:
        headers = {
            **self.headers,
            **{name.replace("_", "-"): value for name, value in more.items() if name != "thread_id"},
        }
        body = {"message": "hello"} | ({"thread_id": more["thread_id"]} if "thread_id" in more else {})
        response = httpx.post(f"{self.url}/chat", json=body, headers=headers, timeout=60)
        response.raise_for_status()
        found: dict[str, Any] = response.json()
        return found

    def processes(self) -> dict[str, int]:
        """Program → pid of everything that runs for this stack."""
        found = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                environment = (entry / "environ").read_bytes()
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                folder = os.readlink(entry / "cwd")
            except (OSError, ProcessLookupError):
                continue
            if (
                str(self.folder) in command
                or str(self.folder).encode() in environment
                or folder.startswith(str(self.folder))
            ):
                release = next(
                    (part.decode()[8:] for part in environment.split(b"\0") if part.startswith(b"RELEASE=")), ""
                )
                found[f"{command.strip()} {release}"] = int(entry.name)
        return found

    def pid(self, command: str, release: str) -> int:
        (pid,) = [pid for name, pid in self.processes().items() if name.endswith(f"-m app {command} {release}")]
        return pid


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    os.environ["OPENAI_API_KEY"] = SECRET
    made = Platform(tmp_path_factory.mktemp("platform") / "slipway")
    try:
        yield made
    finally:
        del os.environ["OPENAI_API_KEY"]
        if made.stack.exists():
            made.stack.operate("destroy", "--yes", "--skip-preview")


@pytest.fixture
def steady(platform: Platform) -> Iterator[list[int]]:
    """Status of requests at 20 per second from beginning to end of the test; 0 for a broken connection."""
    statuses: list[int] = []
    stop = threading.Event()

    def ask() -> None:
        with httpx.Client(timeout=30) as client:
            while not stop.wait(0.05):
                try:
                    statuses.append(
                        client.post(f"{platform.url}/chat", json={"message": "x"}, headers=platform.headers).status_code
                    )
                except httpx.HTTPError:
                    statuses.append(0)

    asking = threading.Thread(target=ask)
    asking.start()
    yield statuses
    stop.set()
    asking.join()


def test_up_from_nothing_ends_with_a_service_that_answers(platform: Platform) -> None:
    changes = platform.up()
    assert set(changes) == {"create"}
    assert {"serviceUrl", "streamUrl", "docsUrl", "healthUrl", "releases", "apiKey"} <= platform.outputs.keys()
    assert platform.outputs["streamUrl"] == f"{platform.url}/api/stream"
    assert httpx.get(platform.outputs["docsUrl"]).status_code == 200
    assert httpx.get(platform.outputs["healthUrl"]).status_code == 200
    assert platform.chat()["answer"].strip() == "you said: hello"
    assert platform.stack.outputs(show_secrets=False)["apiKey"] == "[secret]"


def test_up_again_changes_nothing(platform: Platform) -> None:
    before = platform.processes()
    started = time.monotonic()
    assert platform.up() == {}
    assert time.monotonic() - started < WARM_SECONDS
    assert platform.processes() == before


def test_the_idle_platform_is_small(platform: Platform) -> None:
    """With one release and without a language model; a laptop has other things to do."""
    sizes = {name: pss(pid) for name, pid in platform.processes().items() if not name.endswith(" canary")}
    assert sum(sizes.values()) < IDLE_MIB, sizes


def test_no_secret_stands_in_state_arguments_or_logs(platform: Platform) -> None:
    secrets = [SECRET, str(platform.outputs["apiKey"])]
    for path in [
        *platform.folder.joinpath(".slipway/pulumi").rglob("*"),
        *platform.folder.joinpath(".slipway/test/logs").rglob("*"),
    ]:
        if path.is_file():
            content = path.read_bytes()
            assert not [secret for secret in secrets if secret.encode() in content], path
    assert not [name for name in platform.processes() if any(secret in name for secret in secrets)]


def test_the_split_follows_the_weights_and_a_header_pins(platform: Platform) -> None:
    async def releases(count: int, **headers: str) -> list[str]:
        async with httpx.AsyncClient(headers={**platform.headers, **headers}, timeout=60) as client:
            found: list[str] = []
            gate = asyncio.Semaphore(16)

            async def one() -> None:
                async with gate:
                    response = await client.post(f"{platform.url}/chat", json={"message": "x"})
                    found.append(response.json()["release"])

            await asyncio.gather(*[one() for _ in range(count)])
            return found

    assert asyncio.run(releases(1_000)).count("canary") in BINOMIAL_999
    assert set(asyncio.run(releases(30, **{"x-slipway-release": "canary"}))) == {"canary"}


def test_a_thread_stays_on_its_release_whatever_the_weights_say(platform: Platform) -> None:
    begun = platform.chat(x_slipway_release="canary")
    assert begun["release"] == "canary"
    assert {platform.chat(thread_id=begun["thread_id"])["release"] for _ in range(20)} == {"canary"}


def test_tokens_come_through_the_front_door_one_by_one(platform: Platform) -> None:
    async def times() -> list[float]:
        async with (
            httpx.AsyncClient(headers=platform.headers, timeout=60) as client,
            client.stream("POST", platform.outputs["streamUrl"], json={"message": "x", "graph": "slow"}) as response,
        ):
            return [time.monotonic() async for event in sse(response) if event["event"] == "messages"]

    came = asyncio.run(times())
    assert len(came) >= 100
    assert came[-1] - came[0] > 3, "five seconds of tokens arrived at once: something holds them back"


def test_taking_a_canary_back_is_one_up_that_restarts_nothing(platform: Platform, steady: list[int]) -> None:
    before = platform.processes()
    platform.configure(stable={"weight": 100}, canary={"weight": 0, "pin": {}, "env": {"LOG_LEVEL": "WARNING"}})
    changes = platform.up()
    assert set(changes) == {"update"}
    assert platform.processes() == before
    assert {platform.chat()["release"] for _ in range(100)} == {"stable"}
    assert platform.chat(x_slipway_release="canary")["release"] == "canary", "a pin still reaches it"
    assert set(steady) == {200}


def test_a_changed_setting_restarts_just_its_release_and_loses_no_request(
    platform: Platform, steady: list[int]
) -> None:
    before = platform.processes()
    platform.configure(
        stable={"weight": 100, "env": {"MAX_ITERATIONS": 40}},
        canary={"weight": 0, "pin": {}, "env": {"LOG_LEVEL": "WARNING"}},
    )
    platform.up()
    after = platform.processes()
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    assert changed
    assert all(name.endswith(" stable") for name in changed), changed
    assert platform.chat()["release"] == "stable"
    assert set(steady) == {200}


def test_a_killed_process_comes_back_by_itself(platform: Platform) -> None:
    worker = platform.pid("worker", "stable")
    os.kill(worker, signal.SIGKILL)
    assert platform.chat()["status"] == "success"
    assert platform.pid("worker", "stable") != worker


def test_refresh_notices_what_died_and_up_repairs_it(platform: Platform) -> None:
    """The supervisor itself is gone, and everything with it: nothing is left that could restart anything."""
    supervisor = next(pid for name, pid in platform.processes().items() if "supervisord" in name)
    os.kill(supervisor, signal.SIGKILL)
    deadline = time.monotonic() + 20
    while platform.processes() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert platform.refresh(), "refresh saw no change although nothing runs any more"
    assert platform.up(), "up changed nothing although nothing ran any more"
    assert platform.chat()["status"] == "success"
    assert platform.up() == {}


def test_a_failed_up_says_what_to_do_and_a_corrected_one_succeeds(
    platform: Platform, capfd: pytest.CaptureFixture[str]
) -> None:
    from tools.provision.console import Failure

    broken = {"weight": 0, "env": {"LANGGRAPH_CONFIG": "/nowhere/langgraph.json"}}
    platform.configure(stable={"weight": 100}, canary=broken)
    with pytest.raises(Failure):
        platform.up()
    said = capfd.readouterr()
    assert "/nowhere/langgraph.json" in said.out + said.err, "the process's own words are missing"
    assert ".log" in said.out + said.err, "where is its log?"
    assert platform.chat()["status"] == "success", "the stable release must not suffer"
    platform.configure(stable={"weight": 100})
    platform.up()
    assert platform.up() == {}


def test_a_wrong_configuration_fails_the_preview_with_its_key(platform: Platform) -> None:
    platform.configure(stable={"weight": 70}, canary={"weight": 20})
    try:
        done = subprocess.run(
            [
                "pulumi",
                "preview",
                "--stack",
                "test",
                "--config-file",
                str(platform.stack.config_file()),
                "--non-interactive",
            ],
            cwd=platform.folder,
            env=platform.stack.environment(),
            capture_output=True,
            text=True,
            timeout=120,
        )
    finally:
        platform.configure(stable={"weight": 100})
    assert done.returncode != 0
    assert "releases" in done.stdout + done.stderr
    assert "100" in done.stdout + done.stderr


def test_down_leaves_nothing_behind(platform: Platform) -> None:
    from tools.stack import down

    port = httpx.URL(platform.url).port
    down(platform.stack)
    assert platform.processes() == {}
    assert not (platform.folder / ".slipway").exists()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/healthz")
