"""Who may talk to whom: one NetworkPolicy per workload, made of the edges that it is an end of.

In a namespace that denies everything (`namespace.RestrictedNamespace`) nothing else gets through. An edge inside the
namespace opens both of its ends. Kubernetes lets a node's own probes in whatever the policies say; a cluster whose
network plugin does not enforce policies is not protected by any.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NotRequired, TypedDict

import pulumi
from pulumi_kubernetes import meta, networking

from components.kubernetes import labels

NAMESPACE_LABEL = "kubernetes.io/metadata.name"
"""Kubernetes itself puts it on every namespace."""
PRIVATE = ("10.0.0.0/8", "100.64.0.0/10", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16")
"""Not the internet: clusters, own networks, and the clouds' metadata servers (RFC 1918, 3927, 6598)."""


class PeerArgs(TypedDict):
    """One end of an edge: `component`, or `namespace` (with or without `pod_labels`), or `cidr`."""

    component: NotRequired[str]
    """A kind of workload of this namespace, as its label says: `api`, `worker`, `redis`."""
    namespace: NotRequired[str]
    """Another namespace."""
    pod_labels: NotRequired[Mapping[str, str]]
    """Which pods of that namespace; without, all."""
    cidr: NotRequired[str]
    """Addresses outside of the cluster."""
    excluded: NotRequired[Sequence[str]]
    """Parts of `cidr` that are not meant."""


class EdgeArgs(TypedDict):
    """`source` may open connections to `target` on `ports`."""

    source: PeerArgs
    """Who asks."""
    target: PeerArgs
    """Who answers."""
    ports: Sequence[int]
    """TCP ports of the pods that answer (not of a Service before them)."""
    udp_ports: NotRequired[Sequence[int]]
    """UDP ports."""


class NetworkPoliciesArgs(TypedDict):
    """What a namespace's policies are made of."""

    namespace: pulumi.Input[str]
    """The namespace."""
    edges: Sequence[EdgeArgs]
    """Every connection that there may be, except to the cluster's DNS: who may ask anybody may ask it too."""
    dns: NotRequired[PeerArgs]
    """Where names are resolved. Default: pods `k8s-app=kube-dns` in `kube-system`; a node-local cache has a `cidr`."""


DNS: PeerArgs = {"namespace": "kube-system", "pod_labels": {"k8s-app": "kube-dns"}}
INTERNET: PeerArgs = {"cidr": "0.0.0.0/0", "excluded": PRIVATE}


class NetworkPolicies(pulumi.ComponentResource):
    """One NetworkPolicy per workload, named like it. Output: `components`, the workloads that have one."""

    components: pulumi.Output[Sequence[str]]

    def __init__(self, name: str, args: NetworkPoliciesArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("slipway:kubernetes:NetworkPolicies", name, {}, opts)
        rules = Rules.of(args["edges"], args.get("dns", DNS))
        for component, (ingress, egress) in rules.items():
            networking.v1.NetworkPolicy(
                f"{name}-{component}",
                metadata=meta.v1.ObjectMetaArgs(
                    name=component, namespace=args["namespace"], labels=labels.labels(component, "network")
                ),
                spec=networking.v1.NetworkPolicySpecArgs(
                    pod_selector=meta.v1.LabelSelectorArgs(match_labels=_pods(component)),
                    policy_types=["Ingress", "Egress"],
                    ingress=[
                        networking.v1.NetworkPolicyIngressRuleArgs(from_=[_peer(edge["source"])], ports=_ports(edge))
                        for edge in ingress
                    ],
                    egress=[
                        networking.v1.NetworkPolicyEgressRuleArgs(to=[_peer(edge["target"])], ports=_ports(edge))
                        for edge in egress
                    ],
                ),
                opts=pulumi.ResourceOptions(parent=self),
            )
        self.components = pulumi.Output.from_input(list(rules))
        self.register_outputs({"components": self.components})


class Rules:
    """Edges by the workloads whose policies hold them."""

    @staticmethod
    def of(edges: Iterable[EdgeArgs], dns: PeerArgs) -> dict[str, tuple[list[EdgeArgs], list[EdgeArgs]]]:
        """Workload → edges that come in, edges that go out; in order of the workload's name."""
        found: dict[str, tuple[list[EdgeArgs], list[EdgeArgs]]] = {}
        for edge in edges:
            _check(edge)
            for end, way in (("target", 0), ("source", 1)):
                component = edge[end].get("component")  # type: ignore[literal-required]
                if component is not None:
                    known = found.setdefault(component, ([], []))[way]
                    if edge not in known:
                        known.append(edge)
        for component, (_, egress) in found.items():
            if egress:
                egress.append({"source": {"component": component}, "target": dns, "ports": [53], "udp_ports": [53]})
        return {component: found[component] for component in sorted(found)}


def _check(edge: EdgeArgs) -> None:
    for end in (edge["source"], edge["target"]):
        named = [kind for kind in ("component", "namespace", "cidr") if kind in end]
        if len(named) != 1:
            raise ValueError(
                f"edges: {end} names {' and '.join(named) or 'nobody'}; name one component, namespace or cidr"
            )
    if "component" not in edge["source"] and "component" not in edge["target"]:
        raise ValueError(f"edges: neither end of {edge} is a component of this namespace; take it out")


def _pods(component: str) -> dict[str, str]:
    return {labels.NAME: labels.APPLICATION, labels.COMPONENT: component}


def _peer(peer: PeerArgs) -> networking.v1.NetworkPolicyPeerArgs:
    if "cidr" in peer:
        excluded = list(peer.get("excluded", ()))
        return networking.v1.NetworkPolicyPeerArgs(
            ip_block=networking.v1.IPBlockArgs(cidr=peer["cidr"], except_=excluded or None)
        )
    if "namespace" in peer:
        pods = peer.get("pod_labels")
        return networking.v1.NetworkPolicyPeerArgs(
            namespace_selector=meta.v1.LabelSelectorArgs(match_labels={NAMESPACE_LABEL: peer["namespace"]}),
            pod_selector=meta.v1.LabelSelectorArgs(match_labels=dict(pods)) if pods else None,
        )
    return networking.v1.NetworkPolicyPeerArgs(
        pod_selector=meta.v1.LabelSelectorArgs(match_labels=_pods(peer["component"]))
    )


def _ports(edge: EdgeArgs) -> list[networking.v1.NetworkPolicyPortArgs]:
    wanted: list[tuple[str, int]] = [("UDP", port) for port in edge.get("udp_ports", ())]
    wanted += [("TCP", port) for port in edge["ports"]]
    return [networking.v1.NetworkPolicyPortArgs(protocol=protocol, port=port) for protocol, port in wanted]
