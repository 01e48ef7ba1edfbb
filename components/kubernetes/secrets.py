"""The service's secrets, as files in its pods: from the stack's configuration, or from a store that keeps them.

A Secret of ours is immutable and has a generated name, so that a changed value is a rollout. One that External Secrets
writes keeps its name and changes in place: the service reads its files at start, so after a rotation in the store
restart the pods (`kubectl rollout restart`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import NotRequired, TypedDict

import pulumi
from pulumi_kubernetes import apiextensions, core, meta

from app.infra.auth import new_key
from components.kubernetes import labels
from components.local.dynamic import ByName, CreateResult, DiffResult, Props

_COMPONENT = "secrets"


class StoreKind(str, Enum):  # noqa: UP042 - Pulumi's schema knows this form
    """Where External Secrets looks for the store."""

    CLUSTER = "ClusterSecretStore"
    NAMESPACE = "SecretStore"


class RemoteSecretArgs(TypedDict):
    """Where in the store a value lies."""

    key: pulumi.Input[str]
    """Name or path of the secret in the store."""
    property: NotRequired[pulumi.Input[str]]
    """Field of that secret; without, all of it."""


class SecretStoreArgs(TypedDict):
    """A store (Vault, AWS Secrets Manager, …) that the External Secrets operator reads."""

    name: pulumi.Input[str]
    """Name of the store object."""
    kind: NotRequired[StoreKind]
    """Default: ClusterSecretStore."""
    secrets: Mapping[str, RemoteSecretArgs]
    """File → where its value lies."""
    refresh_interval: NotRequired[pulumi.Input[str]]
    """How often the operator looks for a new value. Default `1h`."""


class ServiceSecretsArgs(TypedDict):
    """What becomes files."""

    namespace: pulumi.Input[str]
    """The namespace."""
    values: NotRequired[Mapping[str, pulumi.Input[str]]]
    """File → value, from the stack."""
    store: NotRequired[SecretStoreArgs]
    """Files whose values a store keeps."""


class ServiceSecrets(pulumi.ComponentResource):
    """Secrets to be mounted. Output: `names`, those of the Secrets (one per origin)."""

    names: pulumi.Output[Sequence[str]]

    def __init__(self, name: str, args: ServiceSecretsArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("slipway:kubernetes:ServiceSecrets", name, {}, opts)
        values, store = args.get("values", {}), args.get("store")
        twice = sorted(set(values) & set(store["secrets"] if store else ()))
        if twice:
            raise ValueError(
                f"secrets: {', '.join(twice)} come from the stack and from the store; take one of them out"
            )
        self.made: list[pulumi.Output[str]] = []
        if values:
            self.made.append(immutable_secret(f"{name}-stack", args["namespace"], values, name, self))
        if store and store["secrets"]:
            self.made.append(self._external(f"{name}-store", args["namespace"], store))
        self.names = pulumi.Output.all(*self.made)
        self.register_outputs({"names": self.names})

    def _external(self, name: str, namespace: pulumi.Input[str], store: SecretStoreArgs) -> pulumi.Output[str]:
        made = apiextensions.CustomResource(
            name,
            api_version="external-secrets.io/v1",
            kind="ExternalSecret",
            metadata=meta.v1.ObjectMetaArgs(
                name=name,
                namespace=namespace,
                labels=labels.labels(_COMPONENT, name),
                annotations={"pulumi.com/waitFor": "condition=Ready"},
            ),
            spec={
                "refreshInterval": store.get("refresh_interval", "1h"),
                "secretStoreRef": {
                    "name": store["name"],
                    "kind": store.get("kind", StoreKind.CLUSTER).value,
                },
                "target": {"name": name, "creationPolicy": "Owner"},
                "data": [
                    {"secretKey": file, "remoteRef": dict(store["secrets"][file])} for file in sorted(store["secrets"])
                ],
            },
            opts=pulumi.ResourceOptions(parent=self),
        )
        # Through the object, so that pods wait for it.
        return made.id.apply(lambda _: name)


def immutable_secret(
    name: str,
    namespace: pulumi.Input[str],
    values: Mapping[str, pulumi.Input[str]],
    instance: str,
    parent: pulumi.Resource,
) -> pulumi.Output[str]:
    """Name of a new Secret with these values by file; another value is another Secret with another name."""
    made = core.v1.Secret(
        name,
        metadata=meta.v1.ObjectMetaArgs(namespace=namespace, labels=labels.labels(_COMPONENT, instance)),
        string_data={file: pulumi.Output.secret(values[file]) for file in sorted(values)},
        immutable=True,
        type="Opaque",
        opts=pulumi.ResourceOptions(parent=parent),
    )
    return made.metadata.apply(lambda metadata: str(metadata.name))


class KeyProvider(ByName):
    """Makes an API key of the service; registers it nowhere."""

    def create(self, props: Props) -> CreateResult:
        key = new_key()
        return CreateResult(key.key_id, {**props, "key": key.text})

    def diff(self, _id: str, _olds: Props, _news: Props) -> DiffResult:
        return DiffResult(changes=False)


class Key(pulumi.dynamic.Resource, module="kubernetes", name="ApiKey"):
    """The text of an API key, made once; encrypted in the state."""

    key: pulumi.Output[str]

    def __init__(self, name: str, *, opts: pulumi.ResourceOptions | None = None) -> None:
        merged = pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(additional_secret_outputs=["key"]))
        assert isinstance(merged, pulumi.ResourceOptions)
        super().__init__(KeyProvider(), name, {"key": None}, merged)


class FirstKeyArgs(TypedDict):
    """What the first API key needs to know."""

    namespace: pulumi.Input[str]
    """The namespace."""


class FirstKey(pulumi.ComponentResource):
    """The first API key, which the service registers in its Redis when it starts (`AgentService.first_key_secret`).

    Outputs: `key` (secret); `secret_name` of the Secret with the file `api_key`.
    """

    key: pulumi.Output[str]
    secret_name: pulumi.Output[str]

    def __init__(self, name: str, args: FirstKeyArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("slipway:kubernetes:FirstKey", name, {}, opts)
        made = Key(f"{name}-text", opts=pulumi.ResourceOptions(parent=self))
        self.key = pulumi.Output.secret(made.key)
        self.secret_name = immutable_secret(f"{name}-secret", args["namespace"], {"api_key": self.key}, name, self)
        self.register_outputs({"key": self.key, "secret_name": self.secret_name})
