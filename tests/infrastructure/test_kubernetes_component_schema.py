"""The components as Pulumi's analyzer reads them: what a program in another language is offered."""

from __future__ import annotations

import pytest
from pulumi.provider.experimental.analyzer import Analyzer, ComponentDefinition

from components.kubernetes.agent import AgentArgs
from components.kubernetes.batch import BatchArgs
from components.kubernetes.schema import COMPONENTS, PACKAGE, readable

REQUIRED = {
    "AgentService": {"namespace", "release", "image", "secrets"},
    "AgentWorkers": {"namespace", "release", "image", "secrets"},
    "NetworkPolicies": {"namespace", "edges"},
    "QueueScaler": {"namespace", "deployment", "instance", "queue", "redis"},
    "RestrictedNamespace": {"namespace"},
    "ServiceSecrets": {"namespace"},
    "TrafficSplit": {"namespace", "backends"},
}


@pytest.fixture(scope="module")
def definitions() -> dict[str, ComponentDefinition]:
    """What the analyzer makes of each component."""
    found = Analyzer(PACKAGE).analyze(readable())["component_definitions"]
    return dict(found)


def test_every_component_can_be_read(definitions: dict[str, ComponentDefinition]) -> None:
    """A type that the analyzer does not know keeps the component from every other language."""
    assert set(definitions) == {component.__name__ for component in COMPONENTS}
    for name, one in definitions.items():
        assert one.description, name
        assert one.inputs, name
        assert one.outputs, name


@pytest.mark.parametrize("name", REQUIRED)
def test_only_what_has_no_sensible_default_is_required(definitions: dict[str, ComponentDefinition], name: str) -> None:
    assert {key for key, one in definitions[name].inputs.items() if not one.optional} == REQUIRED[name]


def test_every_field_is_documented(definitions: dict[str, ComponentDefinition]) -> None:
    """The text under a field is the page that its user reads. (The analyzer looks in one class alone: fields that a
    mapping takes over from another have their text there.)"""
    taken_over = AgentArgs.__annotations__.keys() | BatchArgs.__annotations__.keys()
    for name, one in definitions.items():
        silent = {one.inputs_mapping[key] for key, field in one.inputs.items() if not field.description}
        assert silent <= taken_over, name
        if name in ("QueueScaler", "TrafficSplit", "NetworkPolicies", "RestrictedNamespace", "ServiceSecrets"):
            assert not silent, name


def test_reading_twice_is_reading_once() -> None:
    assert readable() == readable() == list(COMPONENTS)
