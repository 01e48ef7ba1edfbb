"""Every rendered object against the schemas of its API: a field that does not exist is found here, not by a cluster.

Kubernetes' own kinds are held against the schemas of `kubernetes-validate`. Those of custom resources are not to be had
as a package: where MANIFEST_SCHEMAS names a folder of schemas (or kubeconform's template of one), they are taken from
there; without it these tests are skipped and say so.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate  # type: ignore[import-untyped]
import pytest
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT7

from tests.support.kubernetes_stacks import VARIANTS, rendered

VERSIONS = ("1.30", "1.34", "1.37")
"""The oldest cluster that has all that is used (a pod's sleep before it stops), the one of the tests, the newest."""
NO_SCHEMA = {"ExternalSecret"}
"""Kinds that the folder of schemas need not have."""


def is_custom(one: dict[str, Any]) -> bool:
    group = one["apiVersion"].partition("/")[0]
    return ("." in group and not group.endswith(".k8s.io")) or group == "gateway.networking.k8s.io"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_kubernetes_own_objects_are_valid(variant: str, version: str) -> None:
    checked = 0
    for one in rendered(variant).objects:
        if not is_custom(one):
            try:
                kubernetes_validate.validate(one, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                pytest.fail(
                    f"{one['kind']} {one['metadata']['name']}: {'.'.join(map(str, error.path))}: {error.message}"
                )
            checked += 1
    assert checked > 20


def schemas() -> Path:
    """The folder; skips the test where there is none."""
    named = os.environ.get("MANIFEST_SCHEMAS")
    if not named:
        pytest.skip("MANIFEST_SCHEMAS names no folder with schemas of custom resources")
    folder = Path(named.partition("{{")[0])
    assert folder.is_dir(), f"MANIFEST_SCHEMAS={named} is no folder on this machine"
    return folder


@pytest.mark.parametrize("variant", VARIANTS)
def test_custom_objects_are_valid(variant: str) -> None:
    folder = schemas()
    definitions = json.loads((folder / "_definitions.json").read_text())
    registry: Registry[Any] = Registry().with_resource(
        "_definitions.json", Resource.from_contents(definitions, default_specification=DRAFT7)
    )
    checked = set()
    for one in rendered(variant).objects:
        group, _, version = one["apiVersion"].partition("/")
        if not is_custom(one) or one["kind"] in NO_SCHEMA:
            continue
        path = folder / f"{one['kind']}-{group.partition('.')[0]}-{version}.json".lower()
        assert path.is_file(), f"no schema for {one['apiVersion']} {one['kind']} in {folder}"
        validator = jsonschema.Draft7Validator(json.loads(path.read_text()), registry=registry)
        problems = [f"{'.'.join(map(str, error.path))}: {error.message}" for error in validator.iter_errors(one)]
        assert not problems, f"{one['kind']} {one['metadata']['name']}: {problems}"
        checked.add(one["kind"])
    assert {"HTTPRoute", "ScaledObject"} <= checked


def test_a_wrong_field_is_found() -> None:
    """So that the two tests above can fail."""
    wrong = next(one for one in rendered("all releases").objects if one["kind"] == "Deployment")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({**wrong, "spec": {**wrong["spec"], "replica": 1}}, VERSIONS[-1], strict=True)
