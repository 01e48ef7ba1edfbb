"""Names of the registered graphs, read without importing any of them: what an api process needs to know."""

from __future__ import annotations

import json
from pathlib import Path

from app.infra.errors import ConfigurationError


def graph_names(config: Path, *, default: str) -> tuple[str, ...]:
    """The names in `config` (a langgraph.json), `default` among them. Raises `ConfigurationError`."""
    try:
        graphs = json.loads(config.read_text())["graphs"]
        names = tuple(graphs)
    except FileNotFoundError as error:
        raise ConfigurationError(
            f"LANGGRAPH_CONFIG: there is no file {config}", fix="point it to a langgraph.json"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(
            f"{config}: is not of LangGraph's format",
            fix='write {"dependencies": ["."], "graphs": {"agent": "./file.py:graph"}}',
        ) from error
    if default not in names:
        raise ConfigurationError(
            f"DEFAULT_GRAPH={default}: {config} registers {', '.join(names) or 'nothing'}", fix="use one of those"
        )
    return names
