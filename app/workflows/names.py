"""What `langgraph.json` registers, read without importing any of it: what an api process needs to know."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from app.infra.errors import ConfigurationError


def graph_names(config: Path, *, default: str) -> tuple[str, ...]:
    """The names in `config` (a langgraph.json), `default` among them. Raises `ConfigurationError`."""
    names = tuple(graph_entries(config))
    if default not in names:
        raise ConfigurationError(
            f"DEFAULT_GRAPH={default}: {config} registers {', '.join(names) or 'nothing'}", fix="use one of those"
        )
    return names


def graph_entries(config: Path) -> dict[str, str]:
    """Name → `<file or module>:<name>` of each entry of `config`. Raises `ConfigurationError`."""
    try:
        content: Any = json.loads(config.read_text())
    except OSError as error:
        raise ConfigurationError(
            f"LANGGRAPH_CONFIG: cannot read {config}: {error.strerror}", fix="point it to a langgraph.json"
        ) from error
    except ValueError as error:
        raise ConfigurationError(f"{config.name} is not valid JSON: {error}") from error
    graphs = content.get("graphs") if isinstance(content, dict) else None
    if not isinstance(graphs, dict) or not graphs:
        raise ConfigurationError(
            f"{config.name} lists no graphs",
            fix='write {"dependencies": ["."], "graphs": {"agent": "./file.py:graph"}}',
        )
    entries = {}
    for name, target in graphs.items():
        # LangGraph allows {"path": …, "description": …} too.
        target = target.get("path") if isinstance(target, dict) else target
        if not isinstance(target, str) or not all(target.rpartition(":")):
            raise wrong_entry(config, name, "must be <file or module>:<name>", "for example ./mine/graph.py:graph")
        entries[name] = target
    return entries


def wrong_entry(config: Path, name: str, what: str, fix: str = "") -> ConfigurationError:
    """The error about one entry, which it names."""
    return ConfigurationError(f'{config.name}: graph "{name}": {what}', fix=fix)
