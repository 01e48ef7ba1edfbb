"""A namespace in which nothing runs unhardened and nothing talks unasked.

The Pod Security Standard `restricted` is enforced by the cluster itself; without a policy of its own no pod is reached
or reaches anybody (`network.NetworkPolicies` adds the edges).
"""

from __future__ import annotations

from typing import NotRequired, TypedDict

import pulumi
from pulumi_kubernetes import core, meta, networking

from components.kubernetes import labels

_MODES = ("enforce", "audit", "warn")


class RestrictedNamespaceArgs(TypedDict):
    """What a namespace needs to know."""

    namespace: str
    """Its name."""
    create: NotRequired[bool]
    """Whether it is made here, with its Pod Security labels. Default true; false where whoever runs the cluster has
    made it, and labelled it."""
    deny_by_default: NotRequired[bool]
    """Whether traffic is denied that no policy allows. Default true."""
    retain: NotRequired[bool]
    """Whether it, and so every volume in it, stays when the stack is destroyed. Default false."""


class RestrictedNamespace(pulumi.ComponentResource):
    """The namespace and its denial. Output: `namespace`, its name, known once it is there."""

    namespace: pulumi.Output[str]

    def __init__(self, name: str, args: RestrictedNamespaceArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("slipway:kubernetes:RestrictedNamespace", name, {}, opts)
        labels.dns_label(args["namespace"], "namespace")
        self.namespace = (
            self._namespace(name, args) if args.get("create", True) else pulumi.Output.from_input(args["namespace"])
        )
        if args.get("deny_by_default", True):
            networking.v1.NetworkPolicy(
                f"{name}-default-deny",
                metadata=meta.v1.ObjectMetaArgs(
                    name="default-deny", namespace=self.namespace, labels=labels.labels("default-deny", "network")
                ),
                spec=networking.v1.NetworkPolicySpecArgs(
                    pod_selector=meta.v1.LabelSelectorArgs(), policy_types=["Ingress", "Egress"]
                ),
                opts=pulumi.ResourceOptions(parent=self),
            )
        self.register_outputs({"namespace": self.namespace})

    def _namespace(self, name: str, args: RestrictedNamespaceArgs) -> pulumi.Output[str]:
        standard = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in _MODES}
        versions = {f"pod-security.kubernetes.io/{mode}-version": "latest" for mode in _MODES}
        made = core.v1.Namespace(
            f"{name}-namespace",
            metadata=meta.v1.ObjectMetaArgs(
                name=args["namespace"], labels={**standard, **versions, **labels.labels("namespace", args["namespace"])}
            ),
            opts=pulumi.ResourceOptions(parent=self, retain_on_delete=args.get("retain", False)),
        )
        return made.metadata.apply(lambda metadata: str(metadata.name))
