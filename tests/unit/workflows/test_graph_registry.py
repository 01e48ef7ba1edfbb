"""The registry of graphs: LangGraph's own format, and entries that stop the start."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from app.infra.errors import ConfigurationError
from app.infra.settings import REPOSITORY
from app.workflows.names import graph_entries, graph_names
from app.workflows.registry import GraphRegistry

GRAPHS = """\
from typing import TypedDict
from langgraph.graph import END, START, StateGraph

class State(TypedDict):
    text: str

def node(state):
    return {"text": state["text"] + "!"}

def build():
    graph = StateGraph(State)
    graph.add_node("node", node)
    graph.add_edge(START, "node")
    graph.add_edge("node", END)
    return graph

state_graph = build()
compiled = build().compile()
def factory():
    return build()
def with_config(config):
    assert "configurable" in config
    return build().compile()
async def asynchronous():
    return build()
def with_default(config=None, debug=False):
    return build()

number = 3
unconnected = StateGraph(State)
def demanding(one, two):
    return build()
def broken():
    raise KeyError("no such thing")
def gives_text():
    return "graph"
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A langgraph.json beside `mine/graphs.py`, to be written by a test."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "graphs.py").write_text(GRAPHS)
    return tmp_path / "langgraph.json"


def write(config: Path, **graphs: Any) -> Path:
    config.write_text(json.dumps({"dependencies": ["."], "graphs": graphs}))
    return config


@pytest.mark.parametrize("name", ["compiled", "state_graph", "factory", "with_config", "asynchronous", "with_default"])
async def test_each_form_that_langgraph_takes_gives_a_graph(config: Path, name: str) -> None:
    """A project moves here unchanged. Also inside a running event loop, where an async factory is harder."""
    registry = GraphRegistry.load(write(config, mine=f"./mine/graphs.py:{name}"))
    assert registry.names == ["mine"]
    assert "mine" in registry
    assert await registry.get("mine").ainvoke({"text": "hello"}) == {"text": "hello!"}


def test_an_entry_may_be_described(config: Path) -> None:
    """LangGraph's longer form."""
    write(config, mine={"path": "./mine/graphs.py:compiled", "description": "Mine."})
    assert GraphRegistry.load(config).names == ["mine"]


def test_two_graphs_of_one_file_share_its_module(config: Path) -> None:
    """Else whatever the file opens would be open twice."""
    log = "from pathlib import Path\nwith Path(__file__).with_name('log').open('a') as log:\n    log.write('x')\n"
    (config.parent / "mine" / "graphs.py").write_text(f"{GRAPHS}\n{log}")
    GraphRegistry.load(write(config, a="./mine/graphs.py:compiled", b="./mine/graphs.py:factory"))
    assert (config.parent / "mine" / "log").read_text() == "x"


def test_a_file_may_import_its_neighbours_package(config: Path) -> None:
    """The folder of langgraph.json is on the import path, as with LangGraph's own server."""
    (config.parent / "mine" / "helper_of_a_test.py").write_text("VALUE = 7\n")
    (config.parent / "mine" / "user.py").write_text(f"from mine.helper_of_a_test import VALUE\n{GRAPHS}")
    assert GraphRegistry.load(write(config, mine="./mine/user.py:compiled")).names == ["mine"]


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("./mine/none.py:graph", r"there is no file \./mine/none\.py"),
        ("./mine/graphs.py:none", r"\./mine/graphs\.py has no none"),
        ("./mine/graphs.py:number", "gives a int, not a graph"),
        ("./mine/graphs.py:gives_text", "gives a str, not a graph"),
        ("./mine/graphs.py:unconnected", "does not compile"),
        ("./mine/graphs.py:demanding", "wants 2 arguments"),
        ("./mine/graphs.py:broken", "failed: KeyError"),
        ("no_such_module_anywhere:graph", "importing no_such_module_anywhere failed: ModuleNotFoundError"),
        ("graph", "must be <file or module>:<name>"),
        (":graph", "must be <file or module>:<name>"),
        (7, "must be <file or module>:<name>"),
    ],
)
def test_a_wrong_entry_stops_the_start_by_its_name(config: Path, target: Any, said: str) -> None:
    """Found at the start, not when somebody asks for it."""
    with pytest.raises(ConfigurationError, match=rf'langgraph\.json: graph "mine": .*{said}'):
        GraphRegistry.load(write(config, mine=target))


LIFESPAN = """
import contextlib
from pathlib import Path

steps = []

@contextlib.asynccontextmanager
async def graph_lifespan():
    steps.append("begun")
    yield
    steps.append("ended")

async def tell(state):
    return {"text": " ".join(steps)}

def teller():
    graph = StateGraph(State)
    graph.add_node("tell", tell)
    graph.add_edge(START, "tell")
    graph.add_edge("tell", END)
    return graph
"""


async def test_a_modules_lifespan_is_entered_once_and_left(config: Path) -> None:
    """What its graphs hold open is opened on the loop that runs them, once however many they are, and given back."""
    (config.parent / "mine" / "graphs.py").write_text(GRAPHS + LIFESPAN)
    registry = GraphRegistry.load(write(config, a="./mine/graphs.py:teller", b="./mine/graphs.py:factory"))
    steps = registry.get("a")
    assert await steps.ainvoke({"text": ""}) == {"text": ""}
    async with registry.opened():
        assert await steps.ainvoke({"text": ""}) == {"text": "begun"}
    assert await steps.ainvoke({"text": ""}) == {"text": "begun ended"}


async def test_a_lifespan_that_does_not_begin_stops_the_start(config: Path) -> None:
    """By the name of its module: it is the user's code that is to be mended."""
    (config.parent / "mine" / "graphs.py").write_text(GRAPHS + LIFESPAN.replace('steps.append("begun")', "1 / 0"))
    registry = GraphRegistry.load(write(config, mine="./mine/graphs.py:compiled"))
    with pytest.raises(ConfigurationError, match="graph_lifespan failed: ZeroDivisionError"):
        async with registry.opened():
            pass


def test_a_file_that_does_not_import_is_forgotten(config: Path) -> None:
    """A half-imported module must not be taken for a whole one the next time."""
    path = config.parent / "mine" / "graphs.py"
    path.write_text("raise RuntimeError('not yet')")
    with pytest.raises(ConfigurationError, match="RuntimeError: not yet"):
        GraphRegistry.load(write(config, mine="./mine/graphs.py:compiled"))
    path.write_text(GRAPHS)
    assert GraphRegistry.load(config).names == ["mine"]


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"graphs": {}}', '{"graphs": ["a"]}'])
def test_a_wrong_file_says_what_it_should_be(config: Path, text: str) -> None:
    """With an example, or where the JSON breaks."""
    config.write_text(text)
    with pytest.raises(ConfigurationError, match=r"langgraph\.json"):
        graph_entries(config)


def test_a_missing_file_names_the_setting(tmp_path: Path) -> None:
    """That is what is to be changed."""
    with pytest.raises(ConfigurationError, match="LANGGRAPH_CONFIG"):
        graph_entries(tmp_path / "none.json")


def test_the_default_graph_must_be_registered(config: Path) -> None:
    """Else every request without a name would fail."""
    with pytest.raises(ConfigurationError, match=r"DEFAULT_GRAPH=agent: .*registers mine"):
        graph_names(write(config, mine="./mine/graphs.py:compiled"), default="agent")


def test_our_own_file_has_what_managed_deployments_want() -> None:
    """It serves both unchanged (checked with langgraph-cli's `dockerfile` command, 2026-11)."""
    content = json.loads((REPOSITORY / "langgraph.json").read_text())
    assert content == {
        "dependencies": ["."],
        "graphs": {"agent": "./app/workflows/graph.py:make_graph"},
        "env": ".env",
        "python_version": "3.11",
    }
