"""The registry of graphs: reads `langgraph.json` in LangGraph's own format and gives compiled graphs by name.

    {"graphs": {"agent": "./app/workflows/graph.py:make_graph", "mine": "./mine/graph.py:graph"}}

An entry is `<file or module>:<name>`, or `{"path": …}` with it. The name is a compiled graph, a `StateGraph` (compiled
here), or a factory, sync or async, with no parameter or one (the config). A file is imported by its path, and the
folder of `langgraph.json` is on the import path, as LangGraph's own server does.

A module with entries may have an async context manager `graph_lifespan`, without parameters: the worker enters it
when it starts, on the event loop that runs the graphs, and leaves it when its last run has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.graph import StateGraph
from langgraph.pregel import Pregel

from app.infra.errors import ConfigurationError
from app.workflows.names import graph_entries, wrong_entry

Graph = Pregel[Any, Any, Any, Any]
Lifespan = Callable[[], contextlib.AbstractAsyncContextManager[None]]

_LIFESPAN = "graph_lifespan"


class GraphRegistry:
    """Compiled graphs by name, and what their modules want opened while they are used."""

    def __init__(self, graphs: Mapping[str, Graph], lifespans: Mapping[str, Lifespan] | None = None) -> None:
        self._graphs, self._lifespans = dict(graphs), dict(lifespans or {})

    @classmethod
    def load(cls, path: Path) -> GraphRegistry:
        """Import and compile every graph that `path` lists.

        Raises `ConfigurationError`, naming the entry, for the first that cannot be had: a graph that is missing would
        otherwise show only when somebody asks for it. Each factory is called once, an async one in an event loop
        that ends with it: it must keep nothing that is bound to that loop, such as an open connection.
        """
        entries = graph_entries(path)
        root = str(path.resolve().parent)
        if root not in sys.path:
            sys.path.insert(0, root)
        graphs: dict[str, Graph] = {}
        lifespans: dict[str, Lifespan] = {}
        for name, target in entries.items():
            module, graphs[name] = _graph(path, name, target)
            lifespan = getattr(module, _LIFESPAN, None)
            if lifespan is not None:
                lifespans[module.__name__] = lifespan  # once, however many graphs the module has
        return cls(graphs, lifespans)

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Inside, the graphs may be run. Raises `ConfigurationError` for a module whose lifespan does not begin."""
        async with contextlib.AsyncExitStack() as stack:
            for module, lifespan in self._lifespans.items():
                try:
                    await stack.enter_async_context(lifespan())
                except Exception as error:  # foreign code, as in `_graph`
                    raise ConfigurationError(f"{module}.{_LIFESPAN} failed: {type(error).__name__}: {error}") from error
            yield

    @property
    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self._graphs)

    def get(self, name: str) -> Graph:
        """The graph of that name, shared by all runs: copy it before setting anything. Raises KeyError."""
        return self._graphs[name]

    def __contains__(self, name: object) -> bool:
        return name in self._graphs


def _graph(path: Path, name: str, target: str) -> tuple[ModuleType, Graph]:
    place, _, attribute = target.rpartition(":")
    try:
        module = _import(path, place)
    except FileNotFoundError as error:
        raise wrong_entry(path, name, f"there is no file {place}", f"paths are relative to {path.name}") from error
    except Exception as error:  # importing runs foreign code: whatever it raises, the entry is what to look at
        raise wrong_entry(path, name, f"importing {place} failed: {type(error).__name__}: {error}") from error
    found = getattr(module, attribute, None)
    if found is None:
        raise wrong_entry(path, name, f"{place} has no {attribute}")
    if not isinstance(found, Pregel | StateGraph) and callable(found):
        found = _call(path, name, target, found)
    if isinstance(found, StateGraph):
        try:
            found = found.compile(name=name)
        except ValueError as error:
            raise wrong_entry(path, name, f"the graph does not compile: {error}") from error
    if not isinstance(found, Pregel):
        raise wrong_entry(path, name, f"{target} gives a {type(found).__name__}, not a graph")
    return module, found


def _call(path: Path, name: str, target: str, factory: Any) -> Any:
    required = [
        parameter
        for parameter in inspect.signature(factory).parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    ]
    if len(required) > 1:
        raise wrong_entry(path, name, f"{target} wants {len(required)} arguments", "a factory takes none or the config")
    config: list[RunnableConfig] = [{"configurable": {}} for _ in required]
    try:
        made = factory(*config)
        return _awaited(made) if inspect.isawaitable(made) else made
    except ConfigurationError:
        raise
    except Exception as error:  # foreign code, as above
        raise wrong_entry(path, name, f"{target} failed: {type(error).__name__}: {error}") from error


def _awaited(made: Awaitable[Any]) -> Any:
    """The result of `made`, also where an event loop already runs in this thread."""

    async def wait() -> Any:
        return await made

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, wait()).result()


def _import(path: Path, place: str) -> ModuleType:
    """The module at `place`: a dotted name, or a file relative to the folder of `path`."""
    if not (place.endswith(".py") or "/" in place):
        return importlib.import_module(place)
    root = path.resolve().parent
    file = (root / place).resolve()
    if not file.is_file():
        raise FileNotFoundError(file)
    if file.is_relative_to(root):
        # By its dotted name where it lies in a package, or `app.workflows.graph` would be two modules.
        parts = file.relative_to(root).with_suffix("").parts
        if len(parts) > 1 and (root / parts[0] / "__init__.py").is_file():
            return importlib.import_module(".".join(parts))
    unique = f"slipway_graph_{hashlib.sha256(str(file).encode()).hexdigest()[:12]}"
    if unique in sys.modules:
        return sys.modules[unique]
    spec = importlib.util.spec_from_file_location(unique, file)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[unique] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[unique]
        raise
    return module
