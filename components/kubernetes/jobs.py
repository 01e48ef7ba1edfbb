"""What Jobs have in common: a pod that runs to its end and is tried again when it fails, evictions aside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import pulumi
from cronsim import CronSim, CronSimError
from pulumi_kubernetes import batch, core

from components.kubernetes.labels import labels, selector
from components.kubernetes.pod import PlacementArgs, pod_template

NAME_CHARS = 52
"""Longest name of a CronJob: its Jobs' names get 11 characters more."""
_MACROS = ("@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually")
_DISRUPTION = batch.v1.PodFailurePolicyRuleArgs(
    action="Ignore",
    on_pod_conditions=[batch.v1.PodFailurePolicyOnPodConditionsPatternArgs(type="DisruptionTarget", status="True")],
)
"""A pod that was evicted, say because its node is drained, does not count as a failed attempt."""


def job_spec(
    component: str,
    name: str,
    *,
    containers: Sequence[core.v1.ContainerArgs],
    init_containers: Sequence[core.v1.ContainerArgs] = (),
    volumes: Sequence[core.v1.VolumeArgs] = (),
    placement: PlacementArgs | None = None,
    attempts: int = 3,
    deadline_seconds: int = 3_600,
    completions: int = 1,
    parallelism: int = 1,
    annotations: Mapping[str, pulumi.Input[str]] | None = None,
) -> batch.v1.JobSpecArgs:
    """A Job of hardened pods. `attempts` counts all of them, per index where there are several `completions`.

    Several completions are numbered: each pod has its JOB_COMPLETION_INDEX, from 0.
    """
    several = completions > 1
    return batch.v1.JobSpecArgs(
        active_deadline_seconds=deadline_seconds,
        backoff_limit=None if several else attempts - 1,
        backoff_limit_per_index=attempts - 1 if several else None,
        completion_mode="Indexed" if several else None,
        completions=completions,
        parallelism=parallelism,
        pod_failure_policy=batch.v1.PodFailurePolicyArgs(rules=[_DISRUPTION]),
        template=pod_template(
            labels=labels(component, name),
            selector=selector(component, name),
            containers=containers,
            init_containers=init_containers,
            volumes=volumes,
            placement=placement,
            annotations=annotations,
            restart_policy="Never",
        ),
    )


def check_schedule(schedule: pulumi.Input[str], what: str) -> None:
    """Raises ValueError that names the input `what` when `schedule` is no cron expression of Kubernetes."""
    if not isinstance(schedule, str) or schedule in _MACROS:
        return
    try:
        if len(schedule.split()) != 5:
            raise CronSimError("it has not five fields")
        CronSim(schedule, datetime.now(UTC))
    except CronSimError as error:
        raise ValueError(f"{what}: {schedule!r} is no cron expression ({error}); for example `17 */6 * * *`") from error


def cron_name(name: str, what: str) -> str:
    """`name`, when a CronJob can have it. Raises ValueError otherwise."""
    if len(name) > NAME_CHARS:
        raise ValueError(f"{what}: {name!r} has more than {NAME_CHARS} characters; take a shorter one")
    return name
