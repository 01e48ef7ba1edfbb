"""Work that runs to its end: once (`BatchJob`) or by the clock (`ScheduledBatch`), in the service's image or another.

For evaluations, imports, re-indexing, a provider's batch API: what needs neither api nor queue. Both run hardened pods
that may be tried again, so the program must bear being started twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import NotRequired, TypedDict

import pulumi
from pulumi_kubernetes import batch, core, meta

from components.kubernetes.agent import SECRETS_PATH
from components.kubernetes.jobs import check_schedule, cron_name, job_spec
from components.kubernetes.labels import dns_label, labels
from components.kubernetes.parts import claim_volume, metadata
from components.kubernetes.pod import Container, PlacementArgs, ResourcesArgs, container, secrets_volume

_RESOURCES: ResourcesArgs = {
    **{"cpu": "100m", "cpu_limit": "1", "memory": "256Mi", "memory_limit": "1Gi"},
    **{"storage": "64Mi", "storage_limit": "512Mi"},
}
_DATA = "/data"


class Concurrency(StrEnum):
    """What happens when a run is due while the one before it still runs."""

    FORBID = "Forbid"
    """The new one is left out."""
    REPLACE = "Replace"
    """The old one is ended."""
    ALLOW = "Allow"
    """Both run."""


class BatchArgs(TypedDict):
    """What work needs to know; at most one of `module` and `command`."""

    namespace: pulumi.Input[str]
    """Namespace that everything goes into."""
    image: pulumi.Input[str]
    """Image to run, by digest; the service's, or one made from it."""
    module: NotRequired[str]
    """Python module to run (`python -m`)."""
    command: NotRequired[Sequence[pulumi.Input[str]]]
    """In place of the image's entry point, which in the service's image is `python -m app`."""
    arguments: NotRequired[Sequence[pulumi.Input[str]]]
    """Arguments of the module, the command or the entry point. No secrets."""
    env: NotRequired[Mapping[str, pulumi.Input[str]]]
    """Environment variables. No secrets."""
    secrets: NotRequired[Sequence[pulumi.Input[str]]]
    """Secrets to be mounted as files; the service reads its settings there (SECRETS_PATH)."""
    data_claim: NotRequired[pulumi.Input[str]]
    """Existing PersistentVolumeClaim, mounted at /data."""
    completions: NotRequired[int]
    """Pods that must succeed, each with its JOB_COMPLETION_INDEX; default 1."""
    parallelism: NotRequired[int]
    """Pods that run at a time; default 1."""
    attempts: NotRequired[int]
    """Attempts (of each pod, where there are several) before it has failed; evictions do not count. Default 3."""
    deadline_seconds: NotRequired[int]
    """Longest that all of it may take; default 3600."""
    resources: NotRequired[ResourcesArgs]
    """What a pod may use; default: 100m to 1 CPU, 256 MiB to 1 GiB."""
    placement: NotRequired[PlacementArgs]
    """Where pods may run."""


class BatchJobArgs(BatchArgs):
    """Work that runs once; a change of anything runs it again."""

    wait: NotRequired[bool]
    """Whether `pulumi up` waits for its end, and fails when it fails; default false."""


class ScheduledBatchArgs(BatchArgs):
    """Work that runs by the clock."""

    schedule: pulumi.Input[str]
    """When, as a cron expression of five fields."""
    time_zone: NotRequired[pulumi.Input[str]]
    """Time zone of the schedule; default Etc/UTC."""
    concurrency: NotRequired[Concurrency]
    """What happens when the run before still runs; default: the new one is left out."""
    late_seconds: NotRequired[int]
    """How late a run may still start, say after an outage of the control plane; default 600."""
    suspended: NotRequired[bool]
    """Whether nothing is started for now; default false."""


class BatchJob(pulumi.ComponentResource):
    """A Job. Output: `job_name`."""

    job_name: pulumi.Output[str]

    def __init__(self, name: str, args: BatchJobArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("slipway:kubernetes:BatchJob", name, {}, opts)
        dns_label(name, "name of the job")
        _check(args)
        made = batch.v1.Job(
            name,
            metadata=meta.v1.ObjectMetaArgs(
                namespace=args["namespace"],
                labels=labels("batch", name),
                annotations=None if args.get("wait") else {"pulumi.com/skipAwait": "true"},
            ),
            spec=_spec(name, args),
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.job_name = made.metadata.apply(lambda known: str(known.name))
        self.register_outputs({"job_name": self.job_name})


class ScheduledBatch(pulumi.ComponentResource):
    """A CronJob, named like the component. Output: `cron_job_name`; `kubectl create job --from` runs it at once."""

    cron_job_name: pulumi.Output[str]

    def __init__(self, name: str, args: ScheduledBatchArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("slipway:kubernetes:ScheduledBatch", name, {}, opts)
        cron_name(dns_label(name, "name of the job"), "name of the job")
        _check(args)
        check_schedule(args["schedule"], "schedule")
        batch.v1.CronJob(
            name,
            metadata=metadata("batch", name, args["namespace"], fixed=name),
            spec=batch.v1.CronJobSpecArgs(
                schedule=args["schedule"],
                time_zone=args.get("time_zone", "Etc/UTC"),
                concurrency_policy=Concurrency(args.get("concurrency", Concurrency.FORBID)).value,
                starting_deadline_seconds=int(args.get("late_seconds", 600)),
                suspend=args.get("suspended", False),
                successful_jobs_history_limit=3,
                failed_jobs_history_limit=3,
                job_template=batch.v1.JobTemplateSpecArgs(
                    metadata=meta.v1.ObjectMetaArgs(labels=labels("batch", name)), spec=_spec(name, args)
                ),
            ),
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.cron_job_name = pulumi.Output.from_input(name)
        self.register_outputs({"cron_job_name": self.cron_job_name})


def _check(args: BatchArgs) -> None:
    if "module" in args and "command" in args:
        raise ValueError("module, command: give one of them, the other is left out")
    for what, least in (("completions", 1), ("parallelism", 1), ("attempts", 1), ("deadline_seconds", 1)):
        value = args.get(what, least)
        if not isinstance(value, int | float) or value < least:
            raise ValueError(f"{what}: {value} is below {least}")


def _spec(name: str, args: BatchArgs) -> batch.v1.JobSpecArgs:
    volumes: list[core.v1.VolumeArgs] = []
    if args.get("secrets"):
        volumes.append(secrets_volume("secrets", args["secrets"]))
    if "data_claim" in args:
        volumes.append(claim_volume("data", args["data_claim"]))
    return job_spec(
        "batch",
        name,
        containers=[container(_container(args))],
        volumes=volumes,
        placement=args.get("placement"),
        attempts=int(args.get("attempts", 3)),
        deadline_seconds=int(args.get("deadline_seconds", 3_600)),
        completions=int(args.get("completions", 1)),
        parallelism=int(args.get("parallelism", 1)),
    )


def _container(args: BatchArgs) -> Container:
    command = ["python", "-m", args["module"]] if "module" in args else args.get("command")
    return Container(
        name="batch",
        image=args["image"],
        command=command,
        args=args.get("arguments"),
        env={**({"SECRETS_PATH": SECRETS_PATH} if args.get("secrets") else {}), **args.get("env", {})},
        mounts={"data": _DATA} if "data_claim" in args else {},
        read_only_mounts={"secrets": SECRETS_PATH} if args.get("secrets") else {},
        resources=args.get("resources", {}),
        defaults=_RESOURCES,
        probes=None,
    )
