"""The image and compose.yaml, built and brought up for real wherever a Docker daemon answers.

Images other than the pinned ones: PYTHON_IMAGE, REDIS_IMAGE, ENVOY_IMAGE, QDRANT_IMAGE, COLLECTOR_IMAGE. Qdrant and the
collector may be missing: the service works without them, and what is proven of them is skipped.
"""

from __future__ import annotations

import json
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support import container_model
from tests.support.docker import REPOSITORY, Project, docker, image, missing
from tests.support.valkey import free_port

pytestmark = pytest.mark.timeout(600)

_BUILD_SECONDS, _UP_SECONDS, _DOWN_SECONDS = 580.0, 240.0, 120.0
_USER = "10001:10001"
_LASTING = ("api", "worker", "redis", "qdrant", "otel-collector", "front")
_OPTIONAL = {"qdrant": "QDRANT_IMAGE", "otel-collector": "COLLECTOR_IMAGE"}


@pytest.fixture(scope="module", autouse=True)
def daemon() -> None:
    """Skips the module, with the reason, where no container can be run."""
    if missing():
        pytest.skip(f"no containers here: {missing()}")
    for variable in ("PYTHON_IMAGE", "REDIS_IMAGE", "ENVOY_IMAGE"):
        if image(variable) is None:
            pytest.skip(f"{variable}: the pinned image is not there and cannot be pulled; name one that can be had")


@pytest.fixture(scope="module")
def built(daemon: None) -> Iterator[str]:
    """The image, made from this checkout."""
    tag = f"slipway:test-{secrets.token_hex(4)}"
    base = f"PYTHON_IMAGE={image('PYTHON_IMAGE')}"
    docker(
        "build", "-q", "--build-arg", base, "--build-arg", "REVISION=abc1234", "-t", tag, ".", seconds=_BUILD_SECONDS
    )
    yield tag
    docker("image", "rm", "--force", tag)


@pytest.fixture(scope="module")
def project(built: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """The whole of compose.yaml, up, with a scripted model beside it and graphs that need none."""
    folder = tmp_path_factory.mktemp("compose")
    graphs = folder / "graphs"
    graphs.mkdir()
    graphs.chmod(0o755)
    for name in ("graphs.py", "container_model.py"):
        shutil.copy(REPOSITORY / "tests/support" / name, graphs)
    config = {"graphs": {name: f"./graphs.py:{name}" for name in ("instant", "slow")}}
    config["graphs"]["agent"] = "app.workflows.graph:make_graph"
    (graphs / "langgraph.json").write_text(json.dumps(config))
    absent = [service for service, variable in _OPTIONAL.items() if image(variable) is None]
    override = folder / "override.yaml"
    override.write_text(_override(graphs, absent))
    variables = [name for name in ("PYTHON_IMAGE", "REDIS_IMAGE", "ENVOY_IMAGE", *_OPTIONAL.values()) if image(name)]
    made = Project(
        env={
            "SLIPWAY_IMAGE": built,
            **{name: str(image(name)) for name in variables},
            **{name: str(free_port()) for name in ("SLIPWAY_PORT", "OTLP_GRPC_PORT", "OTLP_HTTP_PORT")},
            "OPENAI_API_KEY": "",
            "OPENAI_BASE_URL": f"http://model:{container_model.PORT}/v1",
            "ANTHROPIC_API_KEY": "",
        },
        overrides=(override,),
    )
    try:
        with made.watched():
            up = made.compose("up", "-d", "--no-build", seconds=_UP_SECONDS, check=False)
        if up.returncode != 0:
            logs = made.compose("logs", "--tail", "30", check=False).stdout
            pytest.fail(f"docker compose up ended with {up.returncode}:\n{up.stderr[-3000:]}\n{logs[-6000:]}")
        yield made
    finally:
        made.compose("down", "-v", "--timeout", "5", seconds=_DOWN_SECONDS)


def _override(graphs: Path, absent: list[str]) -> str:
    environment = {"LANGGRAPH_CONFIG": "/srv/graphs/langgraph.json", "DEFAULT_GRAPH": "instant"}
    if "qdrant" in absent:
        environment["QDRANT_URL"] = ""
    if "otel-collector" in absent:
        environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = ""
    lines = ["services:"]
    for service in ("api", "worker"):
        lines += [f"  {service}:", "    env_file: !reset []", f"    environment: {json.dumps(environment)}"]
        lines += [f"    volumes: [{json.dumps(f'{graphs}:/srv/graphs:ro')}]"]
    model = ["image: ${SLIPWAY_IMAGE}", 'entrypoint: ["python", "/srv/graphs/container_model.py"]', "user: '10001'"]
    model += [
        "healthcheck: {disable: true}",
        "networks: [outside]",
        f"volumes: [{json.dumps(f'{graphs}:/srv/graphs:ro')}]",
    ]
    lines += ["  model:", *(f"    {line}" for line in model)]
    for service in absent:
        lines += [f"  {service}: {{profiles: [absent]}}"]
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def key(project: Project) -> str:
    """The first API key, read as the head of compose.yaml says."""
    return project.read("api", "/run/slipway/api_key")


@pytest.fixture
def client(project: Project, key: str) -> Iterator[httpx.Client]:
    """Speaks to the front proxy."""
    address = f"http://127.0.0.1:{project.env['SLIPWAY_PORT']}"
    with httpx.Client(base_url=address, headers={"authorization": f"Bearer {key}"}, timeout=30) as connected:
        yield connected


def _in(built: str, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a program in the image as it is run in production: read-only, no capabilities, no network."""
    fixed = ["--rm", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--network", "none"]
    return docker("run", *fixed, "--entrypoint", command[0], built, *command[1:], check=check)


def _moment(text: str) -> float:
    """Docker's time stamp (RFC 3339 with nanoseconds, UTC) as seconds since 1970."""
    whole, _, fraction = text.rstrip("Z").partition(".")
    return datetime.fromisoformat(f"{whole}+00:00").timestamp() + float(f"0.{fraction or 0}")


def test_the_image_is_for_a_plain_user_and_says_what_it_is(built: str) -> None:
    """User, health check, the two commands' entry point and the labels stand in the image itself."""
    config = json.loads(docker("image", "inspect", built).stdout)[0]["Config"]
    assert config["User"] == _USER
    assert config["Entrypoint"] == ["python", "-m", "app"]
    assert config["Cmd"] == ["api"]
    assert config["Healthcheck"]["Test"] == ["CMD", "python", "-m", "app", "health", "api"]
    assert config["Labels"]["org.opencontainers.image.revision"] == "abc1234"
    assert _in(built, "id", "-u").stdout.strip() == "10001"


def test_nothing_that_compiles_or_installs_is_in_the_image(built: str) -> None:
    """Neither on PATH nor anywhere else, nor importable."""
    wanted = " -o ".join(
        f"-name '{name}'"
        for name in ("gcc*", "cc", "g++*", "clang*", "make", "uv", "uvx", "pip", "pip3*", "cargo", "go", "ensurepip")
    )
    script = rf"find / -xdev \( {wanted} \) -not -path '/usr/share/*' -not -path '/var/lib/dpkg/*' 2>/dev/null"
    assert _in(built, "sh", "-c", script, check=False).stdout.split() == []
    assert "No module named" in _in(built, "python", "-c", "import pip", check=False).stderr


def test_the_image_holds_the_service_and_nothing_else_of_the_repository(built: str) -> None:
    """Documents and the list of graphs are in, compiled code too; tests, secrets and infrastructure are not."""
    names = set(_in(built, "ls", "-A", "/srv/slipway").stdout.split())
    assert names == {"app", "docs", "langgraph.json"}
    assert _in(built, "sh", "-c", "ls docs/*.md").stdout.split()
    sources = int(_in(built, "sh", "-c", "find app -name '*.py' | wc -l").stdout)
    compiled = int(_in(built, "sh", "-c", "find app -name '*.pyc' | wc -l").stdout)
    assert sources == compiled > 0


def test_a_read_only_root_is_enough_for_the_libraries(built: str) -> None:
    """Those with native parts load without a compiler's libraries; nothing can be written but to /tmp."""
    modules = "onnxruntime, psycopg, tokenizers, uvloop, hiredis, httptools, orjson, numpy"
    assert _in(built, "python", "-c", f"import {modules}; print('loaded')").stdout.strip() == "loaded"
    refused = _in(built, "sh", "-c", "touch /tmp/a && touch /srv/slipway/a", check=False)
    assert refused.returncode != 0
    assert "Read-only file system" in refused.stderr


def test_a_wrong_start_says_what_to_do(built: str) -> None:
    """Exit code 2 and one line, no traceback; a worker that does not run is sick."""
    wrong = docker("run", "--rm", "--network", "none", "-e", "PORT=http", built, "worker", check=False)
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("PORT: ")
    assert "Traceback" not in wrong.stderr
    assert _in(built, "python", "-m", "app", "health", "worker", check=False).returncode == 1


def test_a_stop_during_the_start_is_heeded(built: str) -> None:
    """As first process of its container, a worker that is still loading would ignore SIGTERM without a handler."""
    name = f"slipway-test-{secrets.token_hex(4)}"
    docker(
        "run", "-d", "--name", name, "--network", "none", "-e", "OPENAI_BASE_URL=http://127.0.0.1:9", built, "worker"
    )
    try:
        _until(lambda: _handles_sigterm(name), seconds=30, what="a handler for SIGTERM")
        docker("stop", "--time", "20", name)
        assert json.loads(docker("inspect", name).stdout)[0]["State"]["ExitCode"] == 0
    finally:
        docker("rm", "--force", name)


def _handles_sigterm(container: str) -> bool:
    caught = docker("exec", container, "grep", "SigCgt", "/proc/1/status").stdout.split()[1]
    return bool(int(caught, 16) & 1 << (signal.SIGTERM - 1))


def test_each_part_starts_when_what_it_needs_is_healthy(project: Project) -> None:
    """Secrets, then Redis, then the first key, then apis and workers, then the front proxy."""

    healthy: dict[str, float] = {}
    for event in map(json.loads, project.events.splitlines()):
        if event["Action"] == "health_status: healthy":
            healthy.setdefault(event["Actor"]["ID"], event["timeNano"] / 1e9)

    def started(service: str) -> list[float]:
        return [_moment(container["State"]["StartedAt"]) for container in project.containers(service)]

    (made,), (redis,), (registered,) = (project.containers(name) for name in ("secrets", "redis", "first-key"))
    apis, workers = project.containers("api"), project.containers("worker")
    assert (len(apis), len(workers)) == (2, 3)
    assert made["State"]["ExitCode"] == registered["State"]["ExitCode"] == 0
    assert _moment(made["State"]["FinishedAt"]) <= started("redis")[0]
    assert healthy[redis["Id"]] <= started("first-key")[0]
    assert _moment(registered["State"]["FinishedAt"]) <= min(started("api") + started("worker"))
    assert max(healthy[each["Id"]] for each in apis + workers) <= started("front")[0]


def test_every_container_is_confined(project: Project) -> None:
    """Read-only, no capabilities, no way to more rights, not root, limits, bounded logs, ports on loopback only."""
    containers = project.containers()
    assert len(containers) >= 2 + 2 + 3 + 2 + 1
    for container in containers:
        if container["Config"]["Labels"]["com.docker.compose.service"] == "model":
            continue  # the test's own
        name, host = container["Name"], container["HostConfig"]
        assert host["ReadonlyRootfs"], name
        assert host["CapDrop"] == ["ALL"], name
        assert not host["CapAdd"], name
        assert "no-new-privileges:true" in host["SecurityOpt"], name
        assert container["Config"]["User"].split(":")[0] not in ("", "0", "root"), name
        assert host["Memory"] > 0, name
        assert host["NanoCpus"] > 0, name
        assert host["PidsLimit"] > 0, name
        assert host["LogConfig"]["Config"] == {"max-size": "10m", "max-file": "3"}, name
        bindings = [binding for port in (host["PortBindings"] or {}).values() for binding in port]
        assert all(binding["HostIp"] == "127.0.0.1" for binding in bindings), name
    for container in project.containers("api") + project.containers("worker"):
        drain = dict(line.split("=", 1) for line in container["Config"]["Env"])["DRAIN_SECONDS"]
        assert container["Config"]["StopTimeout"] > float(drain) + 3


def test_the_secrets_stand_in_no_configuration_and_no_log(project: Project, key: str) -> None:
    """Whoever lists containers or reads logs learns neither Redis's password nor the key."""
    password = project.read("api", "/run/slipway/redis_password")
    assert len(password) == 43
    shown = json.dumps(project.containers()) + project.compose("logs", "--no-color").stdout
    assert password not in shown
    assert key not in shown
    assert key.rpartition("_")[2] not in shown


def test_redis_takes_nobody_without_the_password(project: Project) -> None:
    """And keeps its log of writes, and forgets nothing under pressure."""
    assert "NOAUTH" in project.compose("exec", "-T", "redis", "redis-cli", "get", "x").stdout
    ask = "REDISCLI_AUTH=$(sed -n 's/^requirepass //p' /run/slipway/redis.conf) redis-cli config get "
    settings = [("appendonly", "yes"), ("appendfsync", "everysec"), ("maxmemory-policy", "noeviction")]
    for name, value in settings:
        assert project.compose("exec", "-T", "redis", "sh", "-c", ask + name).stdout.split() == [name, value]


def test_an_answer_comes_through_the_front_proxy(project: Project, client: httpx.Client) -> None:
    """Many answers, from both apis; the proxy gives each request its id, and passes a caller's on."""
    for number in range(20):
        answer = client.post("/chat", json={"message": f"hello {number}"})
        assert answer.status_code == 200, answer.text
        assert f"hello {number}" in answer.text
    ids = [container["Id"] for container in project.containers("api")]
    assert all('"/chat"' in docker("logs", each).stdout for each in ids)
    named = client.get("/readiness", headers={"x-request-id": "mine-12345678"})
    assert named.headers["x-request-id"].split(",")[0].strip() == "mine-12345678"
    assert client.post("/chat", json={"message": "hi"}, headers={"authorization": "Bearer no"}).status_code == 401


def test_the_agent_of_the_image_answers_from_its_documents(client: httpx.Client) -> None:
    """The built-in graph, its classifier's native parts and docs/, as they are in the image, under a real request."""
    question = {"message": "What happens to a run when a worker is killed?", "graph": "agent"}
    answer = client.post("/chat", json=question)
    assert answer.status_code == 200, answer.text
    sources = answer.json()["sources"]
    assert any("docs/" in str(source) or ".md" in str(source) for source in sources), answer.text


def test_a_stream_passes_the_proxy_piece_by_piece(client: httpx.Client) -> None:
    """The first event is there long before the last: nothing on the way holds it back."""
    arrivals: list[float] = []
    with client.stream("POST", "/api/stream", json={"message": "hello", "graph": "slow"}) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = []
        for line in answer.iter_lines():
            if line.startswith("event:"):
                lines.append(line.split(":", 1)[1].strip())
                arrivals.append(time.monotonic())
    assert lines[-1] == "end"
    assert arrivals[-1] - arrivals[0] > 0.3


def test_a_stopped_worker_leaves_in_time_and_its_run_ends(project: Project, client: httpx.Client) -> None:
    """SIGTERM while runs are under way: exit code 0 within the grace period, and every run gets its answer."""
    runs = [client.post("/chat/async", json={"message": "hello", "graph": "slow"}).json()["run_id"] for _ in range(6)]
    worker = project.containers("worker")[0]["Id"]
    began = time.monotonic()
    docker("stop", worker, seconds=45)
    took = time.monotonic() - began
    state = json.loads(docker("inspect", worker).stdout)[0]["State"]
    assert (state["ExitCode"], state["OOMKilled"]) == (0, False)
    assert took < 25
    assert "Traceback" not in docker("logs", worker).stderr
    for run in runs:
        _until(lambda run=run: client.get(f"/runs/{run}").json()["status"] == "success", seconds=60, what=f"run {run}")


def test_one_api_killed_and_the_other_serves(project: Project, client: httpx.Client) -> None:
    """Not one request fails: what never reached the dead one is sent to the other."""
    docker("kill", project.containers("api")[0]["Id"])
    began = time.monotonic()
    for number in range(20):
        assert client.post("/chat", json={"message": f"still {number}"}).status_code == 200
    # Trying the dead one costs a second, and may happen a few times: not once per request.
    assert time.monotonic() - began < 10


def test_traces_and_metrics_reach_the_collector(project: Project, client: httpx.Client) -> None:
    """OTLP from the service; the collector counts what came."""
    if image("COLLECTOR_IMAGE") is None:
        pytest.skip("COLLECTOR_IMAGE: the pinned image is not there and cannot be pulled")
    assert client.post("/chat", json={"message": "trace me"}).status_code == 200
    _until(
        lambda: "Traces" in project.compose("logs", "--no-color", "otel-collector").stdout,
        seconds=30,
        what="a trace in the collector's log",
    )


def test_up_again_mends_what_died_and_keeps_the_secrets(project: Project, client: httpx.Client, key: str) -> None:
    """The stopped api and worker come back; the others are the same containers; the key still opens."""
    before = {container["Id"] for container in project.containers()}
    project.compose("up", "-d", "--no-build", seconds=_UP_SECONDS)
    after = project.containers()
    assert {container["Id"] for container in after} == before
    lasting = [c for c in after if c["Config"]["Labels"]["com.docker.compose.service"] in _LASTING]
    assert all(container["State"]["Running"] for container in lasting)
    assert project.read("api", "/run/slipway/api_key") == key
    assert client.post("/chat", json={"message": "again"}).status_code == 200


def test_down_leaves_nothing(project: Project) -> None:
    """No container, network or volume; every process heeds SIGTERM in time."""
    running = [c["Id"] for c in project.containers() if c["State"]["Running"]]
    began = time.monotonic()
    project.compose("stop", seconds=_DOWN_SECONDS)
    assert time.monotonic() - began < 60
    ended = {c["Name"]: c["State"]["ExitCode"] for c in project.containers() if c["Id"] in running}
    del ended[f"/{project.name}-model-1"]  # the test's own
    assert set(ended.values()) == {0}, ended
    project.compose("down", "-v", seconds=_DOWN_SECONDS)
    assert project.left() == {"containers": [], "volumes": [], "networks": []}


def _until(look: Any, *, seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
        time.sleep(0.2)
