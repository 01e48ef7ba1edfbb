"""The components as a Pulumi package, for programs in every language of Pulumi (`PulumiPlugin.yaml`).

    pulumi package add <this folder, or its place on GitHub>     then `slipway.Redis`, `slipway.AgentWorkers`, …

Pulumi reads the package's schema from the components' annotations and docstrings. Its analyzer (SDK 3.259) knows
neither annotations that are kept as text (`from __future__ import annotations`) nor docstrings of inherited fields:
`_resolve` and `InheritingAnalyzer` give it both.
"""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
import typing
from typing import Any

import pulumi
from pulumi.output import T
from pulumi.provider import main as serve
from pulumi.provider.experimental import component
from pulumi.provider.experimental.analyzer import Analyzer

from app.infra.version import VERSION
from components.kubernetes.agent_service import AgentService
from components.kubernetes.agent_workers import AgentWorkers
from components.kubernetes.backup import Backup
from components.kubernetes.batch import BatchJob, ScheduledBatch
from components.kubernetes.model_server import ModelServer
from components.kubernetes.namespace import RestrictedNamespace
from components.kubernetes.network import NetworkPolicies
from components.kubernetes.otel_collector import OtelCollector
from components.kubernetes.qdrant import Qdrant
from components.kubernetes.queue_scaler import QueueScaler
from components.kubernetes.redis import Redis
from components.kubernetes.stateful_agent import StatefulAgent
from components.kubernetes.traffic_split import TrafficSplit

NAME = "slipway"
COMPONENTS: list[type[pulumi.ComponentResource]] = [
    *(AgentService, AgentWorkers, Backup, BatchJob, ModelServer, NetworkPolicies, OtelCollector, Qdrant, QueueScaler),
    *(Redis, RestrictedNamespace, ScheduledBatch, StatefulAgent, TrafficSplit),
]
_NAMES_IN_INPUT = {"Output": pulumi.Output, "T": T}
"""`pulumi.Input` itself refers to these by name."""


class InheritingAnalyzer(Analyzer):
    """Finds the docstring of a field in the class that declares it."""

    def get_docstring(self, typ: type, name: str) -> str | None:
        found = super().get_docstring(typ, name)
        for base in _written_bases(typ) if found is None else ():
            found = found or self.get_docstring(base, name)
        return found


def _written_bases(typ: type) -> list[type]:
    """The TypedDicts that one inherits from, as its source says: Python 3.11 itself forgets them."""
    if not typing.is_typeddict(typ):
        return []
    written = ast.parse(textwrap.dedent(inspect.getsource(typ))).body[0]
    assert isinstance(written, ast.ClassDef)
    names = [base.id for base in written.bases if isinstance(base, ast.Name)]
    there = vars(sys.modules[typ.__module__])
    return [there[name] for name in names if typing.is_typeddict(there.get(name))]


def provider() -> component.ComponentProvider:
    """The package's provider; its schema is made now."""
    for made in COMPONENTS:
        _resolve(made)
    known, component.Analyzer = component.Analyzer, InheritingAnalyzer  # type: ignore[attr-defined]
    try:
        return component.ComponentProvider(COMPONENTS, NAME, version=VERSION)
    finally:
        component.Analyzer = known  # type: ignore[attr-defined]


def _resolve(made: type[pulumi.ComponentResource]) -> None:
    """Puts types in the place of the text of annotations: of a component, of its arguments and of what is in these."""
    made.__annotations__ = inspect.get_annotations(made, eval_str=True)
    constructor = made.__init__
    constructor.__annotations__ = inspect.get_annotations(constructor, eval_str=True)
    _resolve_arguments(constructor.__annotations__["args"], set())


def _resolve_arguments(found: Any, seen: set[Any]) -> None:
    if typing.is_typeddict(found) and found not in seen:
        seen.add(found)
        found.__annotations__ = typing.get_type_hints(found, localns=_NAMES_IN_INPUT, include_extras=True)
        for annotation in found.__annotations__.values():
            _resolve_arguments(annotation, seen)
    for part in typing.get_args(found):
        _resolve_arguments(part, seen)


def main() -> None:
    """Serve the package to Pulumi's engine, whose address is the last argument."""
    serve(provider(), sys.argv[1:])
