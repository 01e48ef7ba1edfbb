"""The Pulumi program under mocks: what it asks for, in which shape, and what of it is secret."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pulumi
import pytest
from pulumi.runtime import mocks, rpc, settings
from pulumi.runtime.stack import Stack, run_pulumi_func

from components.local import vector_store
from stacks import config, local
from stacks.config import StackConfig
from stacks.outputs import export

KEY, PASSWORD, MODEL_KEY = "slw_made-by-the-provider", "made-by-the-provider", "sk-from-the-configuration"


class Engine(mocks.Mocks):
    """Pulumi without an engine; remembers each resource it was asked to make."""

    def __init__(self) -> None:
        self.made: list[mocks.MockResourceArgs] = []

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str, dict[str, Any]]:
        self.made.append(args)
        inputs = {key: value for key, value in args.inputs.items() if key != "__provider"}
        match args.typ.rpartition(":")[2]:
            case "Ports":
                made: dict[str, Any] = {"ports": {name: 20_000 + at for at, name in enumerate(inputs["names"])}}
            case "Secret":
                made = {"value": PASSWORD}
            case "ApiKey":
                made = {"key": KEY}
            case "Process":
                made = {"program": args.name, "pid": 1, "assigned_port": 30_000 + len(self.made), "status": "RUNNING"}
            case "Routes":
                made = {"version": "v1"}
            case _:
                made = {"pid": 1}
        return f"{args.name}-id", {**inputs, **made}

    def call(self, args: mocks.MockCallArgs) -> tuple[dict[str, Any], list[tuple[str, str]]]:
        raise AssertionError(f"the program calls {args.token}")

    def of(self, kind: str) -> dict[str, dict[str, Any]]:
        """Inputs of all resources of one kind, by name."""
        return {args.name: _plain(args.inputs) for args in self.made if args.typ.endswith(f":{kind}")}


def _plain(value: Any) -> Any:
    """Without the wrapping that marks a secret on its way to the engine."""
    if isinstance(value, dict):
        if rpc._special_sig_key in value:
            return _plain(value["value"])
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_plain(part) for part in value]
    return value


Built = tuple[Engine, dict[str, tuple[Any, bool]]]
Build = Callable[..., Built]


@pytest.fixture
def build(monkeypatch: pytest.MonkeyPatch) -> Iterator[Build]:
    """Runs the program for a configuration; gives the engine and the outputs, each with whether it is secret."""
    loops: list[asyncio.AbstractEventLoop] = []
    new_event_loop = asyncio.new_event_loop

    def recorded() -> asyncio.AbstractEventLoop:
        loops.append(new_event_loop())
        return loops[-1]

    # Pulumi's mocks make a loop in each thread that they run in and close none.
    monkeypatch.setattr(asyncio, "new_event_loop", recorded)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)

    def run(**keys: Any) -> Built:
        raw = {key: value if isinstance(value, str) else json.dumps(value) for key, value in keys.items()}
        stack = config.parse(raw, secret=set(raw), environment={})
        engine = Engine()
        exported: dict[str, tuple[Any, bool]] = {}

        async def outputs() -> None:
            # In this task's own context: the next run begins with no stack.
            mocks.set_mocks(engine, project="slipway", stack="test", preview=False)
            await run_pulumi_func(lambda: export(stack, local.build(stack)))
            root = settings.get_root_resource()
            assert isinstance(root, Stack)
            for name, value in root.outputs.items():
                output = pulumi.Output.from_input(value)
                exported[name] = (await output.future(), await output.is_secret())

        loop.run_until_complete(outputs())
        return engine, exported

    yield run
    loop.run_until_complete(loop.shutdown_default_executor())
    for made in loops:
        made.close()
    asyncio.set_event_loop(None)


TWO = {"stable": {"weight": 90}, "canary": {"weight": 10, "pin": {}, "env": {"PROMPT_VERSION": "2"}}}


def test_the_outputs_are_the_service_and_only_the_key_is_secret(build: Build) -> None:
    """`make outputs` shows them; the key only when asked."""
    _, outputs = build(publicAddress="127.0.0.1:8080")
    assert {name: secret for name, (_, secret) in outputs.items()} == {
        "serviceUrl": False,
        "streamUrl": False,
        "docsUrl": False,
        "healthUrl": False,
        "releases": False,
        "apiKey": True,
    }
    assert outputs["serviceUrl"][0] == "http://127.0.0.1:8080"
    assert outputs["streamUrl"][0] == "http://127.0.0.1:8080/api/stream"
    assert outputs["docsUrl"][0] == "http://127.0.0.1:8080/docs"
    assert outputs["healthUrl"][0] == "http://127.0.0.1:8080/readiness"
    assert outputs["releases"][0] == {"stable": {"role": "serving", "weight": 100, "workers": 1}}
    assert outputs["apiKey"][0] == KEY


def test_two_releases_are_two_apis_and_two_workers_with_their_own_settings(build: Build) -> None:
    engine, outputs = build(releases=TWO)
    processes = engine.of("Process")
    assert sorted(name for name in processes if name.startswith(("api", "worker"))) == [
        "api-canary",
        "api-stable",
        "worker-canary-1",
        "worker-stable-1",
    ]
    for command in ("api-canary", "worker-canary-1"):
        assert processes[command]["env"]["RELEASE"] == "canary"
        assert processes[command]["env"]["PROMPT_VERSION"] == "2"
    assert "PROMPT_VERSION" not in processes["api-stable"]["env"]
    assert outputs["releases"][0]["canary"] == {
        "role": "serving",
        "weight": 10,
        "workers": 1,
        "pin": "x-slipway-release: canary",
        "env": {"PROMPT_VERSION": "2"},
    }


def test_no_secret_is_a_plain_input_of_any_resource(build: Build) -> None:
    """What is not marked stands readable in the state."""
    engine, _ = build(openaiApiKey=MODEL_KEY, secretEnv={"LANGSMITH_API_KEY": "ls-secret"})
    for args in engine.made:
        text = json.dumps(_without_secrets(args.inputs))
        for secret in (PASSWORD, MODEL_KEY, "ls-secret", KEY):
            assert secret not in text, f"{args.name} has a secret in clear"
    assert engine.of("Process")["api-stable"]["secret_env"]["OPENAI_API_KEY"] == MODEL_KEY


def test_the_vector_store_serves_only_who_has_its_key(build: Build) -> None:
    """It holds what users asked to be remembered, and every user of the machine can reach its port."""
    engine, _ = build(qdrantApiKey="of-another-qdrant")
    processes = engine.of("Process")
    assert processes["vector-store"]["secret_env"] == {vector_store.API_KEY_VARIABLE: PASSWORD}
    for name in ("api-stable", "worker-stable-1"):
        assert processes[name]["secret_env"]["QDRANT_API_KEY"] == PASSWORD


def _without_secrets(value: Any) -> Any:
    if isinstance(value, dict):
        if rpc._special_sig_key in value:
            return "[secret]"
        return {key: _without_secrets(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_without_secrets(part) for part in value]
    return value


def test_what_the_configuration_brings_is_not_started(build: Build) -> None:
    """A Redis, a Qdrant and a model of one's own take the place of ours."""
    engine, _ = build(
        redisUrl="redis://:pw@redis:6379/0", qdrantUrl="http://qdrant:6333", openaiBaseUrl="http://models/v1"
    )
    processes = engine.of("Process")
    assert sorted(processes) == ["api-stable", "front-door", "worker-stable-1"]
    env = processes["api-stable"]["env"]
    assert (env["QDRANT_URL"], env["OPENAI_BASE_URL"]) == ("http://qdrant:6333", "http://models/v1")
    assert "ORCHESTRATOR_MODEL" not in env
    assert engine.of("Ports")["ports"]["names"] == ["front-door"]


def test_without_any_model_the_small_one_is_served_under_its_name(build: Build) -> None:
    """The answer then says which model wrote it."""
    engine, _ = build()
    env = engine.of("Process")["worker-stable-1"]["env"]
    assert env["OPENAI_BASE_URL"].startswith("http://127.0.0.1:")
    assert env["ORCHESTRATOR_MODEL"] == env["REASONING_MODEL"] == "smollm2-135m-instruct"


def test_a_setting_of_the_stack_wins_over_the_platforms_default_and_a_releases_over_both(build: Build) -> None:
    engine, _ = build(
        env={"ORCHESTRATOR_MODEL": "mine", "WORKER_SLOTS": 2},
        releases={"stable": {"weight": 100, "env": {"WORKER_SLOTS": 3}}},
    )
    env = engine.of("Process")["api-stable"]["env"]
    assert (env["ORCHESTRATOR_MODEL"], env["WORKER_SLOTS"]) == ("mine", "3")


def test_a_shadow_writes_under_its_own_prefix_and_knows_the_key(build: Build) -> None:
    """Copies carry the caller's key; the shadow must recognise it within its own keys."""
    engine, _ = build(releases={"stable": {"weight": 100}, "next": {"mirrorPercent": 5}})
    processes = engine.of("Process")
    assert processes["api-next"]["env"]["REDIS_KEY_PREFIX"] == "shadow:next:"
    assert processes["worker-next-1"]["env"]["REDIS_KEY_PREFIX"] == "shadow:next:"
    assert "REDIS_KEY_PREFIX" not in processes["api-stable"]["env"]
    assert engine.of("ApiKey")["api-key"]["prefixes"] == ["", "shadow:next:"]


def test_a_draining_release_has_workers_and_no_api(build: Build) -> None:
    engine, _ = build(releases={"stable": {"weight": 100}, "old": {"state": "draining"}})
    processes = engine.of("Process")
    assert "worker-old-1" in processes
    assert "api-old" not in processes
    assert set(engine.of("Routes")["front-door-routes"]["addresses"]) == {"stable"}


def test_processes_outlive_their_own_time_to_drain(build: Build) -> None:
    """A grace shorter than DRAIN_SECONDS would kill what the process still finishes."""
    engine, _ = build(env={"DRAIN_SECONDS": 45})
    assert engine.of("Process")["api-stable"]["grace_seconds"] > 45


def test_every_resource_hangs_below_a_component_or_the_stack(build: Build) -> None:
    """The tree in `pulumi up` is what a reader sees first."""
    engine, _ = build(releases=TWO)
    kinds = {args.typ for args in engine.made}
    assert {
        "slipway:components:Valkey",
        "slipway:components:VectorStore",
        "slipway:components:ModelServer",
        "slipway:components:Release",
        "slipway:components:FrontDoor",
    } <= kinds


def test_the_codes_digest_changes_with_a_file_and_not_with_a_cache(tmp_path: Path) -> None:
    """An edit is shipped by `make up`; running the tests is not an edit."""
    (tmp_path / "app" / "__pycache__").mkdir(parents=True)
    (tmp_path / "app" / "a.py").write_text("1")
    before = local.build_digest(tmp_path)
    (tmp_path / "app" / "__pycache__" / "a.pyc").write_text("x")
    assert local.build_digest(tmp_path) == before
    (tmp_path / "app" / "a.py").write_text("2")
    assert local.build_digest(tmp_path) != before


def test_the_default_stack_is_the_default_configuration() -> None:
    assert StackConfig().releases["stable"].weight == 100
