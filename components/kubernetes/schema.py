"""The components as Pulumi's analyzer reads them, for programs in other languages.

The analyzer (pulumi.provider.experimental) takes annotations as they stand, and ours stand as text
(`from __future__ import annotations`). `readable` puts what the text means in its place, and tells each mapping of
arguments which of its keys may be left out, which Python could not know while they were text.
"""

from __future__ import annotations

import inspect
import sys
import typing
from collections.abc import Mapping
from typing import Any, ForwardRef, NotRequired, get_args, get_origin

import pulumi

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
from components.kubernetes.secrets import ServiceSecrets
from components.kubernetes.stateful_agent import StatefulAgent
from components.kubernetes.traffic_split import TrafficSplit

PACKAGE = "slipway"
COMPONENTS: tuple[type[pulumi.ComponentResource], ...] = (
    AgentService,
    AgentWorkers,
    Backup,
    BatchJob,
    ModelServer,
    NetworkPolicies,
    OtelCollector,
    Qdrant,
    QueueScaler,
    Redis,
    RestrictedNamespace,
    ScheduledBatch,
    ServiceSecrets,
    StatefulAgent,
    TrafficSplit,
)
"""What other languages see. Not `FirstKey`: its provider is pickled by Python, for a Python program."""


def readable(
    components: tuple[type[pulumi.ComponentResource], ...] = COMPONENTS,
) -> list[type[pulumi.ComponentResource]]:
    """The components, with annotations that the analyzer can read; doing it twice is the same as once."""
    seen: set[type] = set()
    for component in components:
        constructor: Any = component.__init__
        constructor.__annotations__ = _meant(constructor.__annotations__, component.__module__)
        _arguments(constructor.__annotations__["args"], seen)
        component.__annotations__ = _meant(inspect.get_annotations(component), component.__module__)
    return list(components)


def _arguments(annotation: Any, seen: set[type]) -> None:
    """Every mapping that is a part of an annotation."""
    for part in get_args(annotation):
        _arguments(part, seen)
    if not typing.is_typeddict(annotation) or annotation in seen:
        return
    seen.add(annotation)
    annotation.__annotations__ = _meant(annotation.__annotations__, annotation.__module__)
    optional = {name for name, meant in annotation.__annotations__.items() if get_origin(meant) is NotRequired}
    annotation.__optional_keys__ = frozenset(optional)
    annotation.__required_keys__ = frozenset(annotation.__annotations__) - optional
    for meant in annotation.__annotations__.values():
        _arguments(meant, seen)


def _meant(annotations: Mapping[str, Any], module: str) -> dict[str, Any]:
    """Only the text of an annotation itself: Pulumi's own forward references within one must stay as they are."""
    found = {}
    for name, annotation in annotations.items():
        where = module
        if isinstance(annotation, ForwardRef):
            # Of a mapping that takes over the keys of another, which may be of another module.
            where = annotation.__forward_module__ or module
            annotation = annotation.__forward_arg__
        found[name] = eval(annotation, vars(sys.modules[where])) if isinstance(annotation, str) else annotation  # noqa: S307 - our own source
    return found
