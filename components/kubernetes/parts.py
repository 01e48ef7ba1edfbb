"""Small objects that several components need: metadata, disks, budgets, volumes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NotRequired, TypedDict

import pulumi
from pulumi_kubernetes import apps, core, meta, policy

from components.kubernetes.labels import labels, selector


class DiskArgs(TypedDict):
    """A disk for each pod of a workload, as it is made at first; later growth is the claim's (`kubectl patch pvc`)."""

    size: NotRequired[pulumi.Input[str]]
    """Size when it is made, such as `8Gi`. Kubernetes lets nobody change it here afterwards: a change is left alone."""
    storage_class: NotRequired[pulumi.Input[str]]
    """StorageClass; default: the cluster's."""
    keep: NotRequired[bool]
    """Whether it outlives the component; default true. False removes the data, also when the workload is replaced."""


CLAIM_IS_FIXED = ("spec.volumeClaimTemplates",)
"""`ignore_changes` of a StatefulSet: another size would replace it, and with it, where it is not kept, its data."""


def metadata(
    component: str, name: str, namespace: pulumi.Input[str], *, fixed: str | None = None
) -> meta.v1.ObjectMetaArgs:
    """Labels and namespace. `fixed` is a name that other things refer to; without, Pulumi makes one."""
    return meta.v1.ObjectMetaArgs(name=fixed, namespace=namespace, labels=labels(component, name))


def one_may_go(
    component: str, name: str, namespace: pulumi.Input[str], opts: pulumi.ResourceOptions
) -> policy.v1.PodDisruptionBudget:
    """A budget by which pods leave one at a time, the only one too: a node must be drainable."""
    return policy.v1.PodDisruptionBudget(
        f"{name}-budget",
        metadata=metadata(component, name, namespace),
        spec=policy.v1.PodDisruptionBudgetSpecArgs(
            max_unavailable=1,
            selector=meta.v1.LabelSelectorArgs(match_labels=selector(component, name)),
        ),
        opts=opts,
    )


def headless_service(
    component: str,
    name: str,
    namespace: pulumi.Input[str],
    ports: Sequence[core.v1.ServicePortArgs],
    opts: pulumi.ResourceOptions,
) -> core.v1.Service:
    """`<name>-nodes`: names each pod of a StatefulSet, ready or not."""
    return core.v1.Service(
        f"{name}-nodes",
        metadata=metadata(component, name, namespace, fixed=f"{name}-nodes"),
        spec=core.v1.ServiceSpecArgs(
            cluster_ip="None", publish_not_ready_addresses=True, selector=selector(component, name), ports=list(ports)
        ),
        opts=opts,
    )


def claim_template(disk: DiskArgs, size: str) -> core.v1.PersistentVolumeClaimArgs:
    """The claim `data` of a StatefulSet; `size` where the disk names none."""
    return core.v1.PersistentVolumeClaimArgs(metadata=meta.v1.ObjectMetaArgs(name="data"), spec=_claim_spec(disk, size))


def claim(
    name: str, component: str, namespace: pulumi.Input[str], disk: DiskArgs, size: str, opts: pulumi.ResourceOptions
) -> core.v1.PersistentVolumeClaim:
    """A disk that belongs to no StatefulSet; `keep` keeps it when the component goes. Nobody waits for it here."""
    kept = pulumi.ResourceOptions(retain_on_delete=disk.get("keep", True))
    return core.v1.PersistentVolumeClaim(
        name,
        metadata=meta.v1.ObjectMetaArgs(
            name=name,
            namespace=namespace,
            labels=labels(component, name),
            annotations={"pulumi.com/skipAwait": "true"},  # many storage classes wait for the first pod
        ),
        spec=_claim_spec(disk, size),
        opts=pulumi.ResourceOptions.merge(opts, kept),
    )


def retention(disk: DiskArgs) -> apps.v1.StatefulSetPersistentVolumeClaimRetentionPolicyArgs:
    """What becomes of a StatefulSet's claims: they stay while it is scaled down, in any case."""
    return apps.v1.StatefulSetPersistentVolumeClaimRetentionPolicyArgs(
        when_deleted="Retain" if disk.get("keep", True) else "Delete", when_scaled="Retain"
    )


def memory_volume(name: str, size: str) -> core.v1.VolumeArgs:
    """An empty folder in memory: what lies there touches no disk of the node."""
    return core.v1.VolumeArgs(name=name, empty_dir=core.v1.EmptyDirVolumeSourceArgs(medium="Memory", size_limit=size))


def scratch_volume(name: str, size: str) -> core.v1.VolumeArgs:
    """An empty folder on the node."""
    return core.v1.VolumeArgs(name=name, empty_dir=core.v1.EmptyDirVolumeSourceArgs(size_limit=size))


def claim_volume(name: str, claim_name: pulumi.Input[str], *, read_only: bool = False) -> core.v1.VolumeArgs:
    """A disk."""
    return core.v1.VolumeArgs(
        name=name,
        persistent_volume_claim=core.v1.PersistentVolumeClaimVolumeSourceArgs(
            claim_name=claim_name, read_only=read_only or None
        ),
    )


def _claim_spec(disk: DiskArgs, size: str) -> core.v1.PersistentVolumeClaimSpecArgs:
    return core.v1.PersistentVolumeClaimSpecArgs(
        access_modes=["ReadWriteOnce"],
        storage_class_name=disk.get("storage_class"),
        resources=core.v1.VolumeResourceRequirementsArgs(requests={"storage": disk.get("size", size)}),
    )
