"""Batch work, as rendered."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from components.kubernetes.batch import BatchJob, BatchJobArgs, Concurrency, ScheduledBatch, ScheduledBatchArgs
from tests.support.components import Render, assert_hardened, assert_valid, rendering

IMAGE = "registry.example.com/slipway@sha256:" + "0" * 64


@pytest.fixture
def render() -> Iterator[Render]:
    with rendering() as run:
        yield run


def once(**changes: Any) -> BatchJob:
    return BatchJob("import", BatchJobArgs(**{"namespace": "agents", "image": IMAGE, **changes}))  # type: ignore[typeddict-item]


def nightly(**changes: Any) -> ScheduledBatch:
    args = {"namespace": "agents", "image": IMAGE, "schedule": "30 2 * * *", **changes}
    return ScheduledBatch("nightly", ScheduledBatchArgs(**args))  # type: ignore[typeddict-item]


@pytest.mark.parametrize("make", [once, nightly])
def test_both_are_hardened(render: Render, make: Any) -> None:
    rendered = render(lambda: make(secrets=["slipway"], data_claim="files"))
    assert_hardened(rendered)
    assert_valid(rendered)


@pytest.mark.parametrize("make", [once, nightly])
def test_an_eviction_is_no_failure(render: Render, make: Any) -> None:
    """A drained node must not use up a job's attempts."""
    one = render(make).objects[0]
    spec = one["spec"]["jobTemplate"]["spec"] if one["kind"] == "CronJob" else one["spec"]
    rules = spec["podFailurePolicy"]["rules"]
    assert rules == [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]
    assert spec["template"]["spec"]["restartPolicy"] == "Never", "a failure policy needs it"
    assert spec["backoffLimit"] == 2
    assert spec["activeDeadlineSeconds"] == 3_600


def test_a_module_a_command_or_the_entry_point_is_run(render: Render) -> None:
    def started(**changes: Any) -> tuple[Any, Any]:
        container = render(lambda: once(**changes)).pods()[0][1]["containers"][0]
        return container.get("command"), container.get("args")

    assert started(module="tools.reindex", arguments=["--all"]) == (["python", "-m", "tools.reindex"], ["--all"])
    assert started(arguments=["bootstrap", "key"]) == (None, ["bootstrap", "key"])
    assert started(command=["sh", "-c", "true"]) == (["sh", "-c", "true"], None)


def test_several_pods_are_numbered_and_each_has_its_attempts(render: Render) -> None:
    """One pod that always fails must not end the work of the others."""
    spec = render(lambda: once(completions=10, parallelism=4)).only("Job")["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 10, 4)
    assert spec["backoffLimitPerIndex"] == 2
    assert "backoffLimit" not in spec


def test_pulumi_waits_for_a_job_only_when_told(render: Render) -> None:
    waiting = render(lambda: once(wait=True)).only("Job")
    assert "pulumi.com/skipAwait" not in waiting["metadata"].get("annotations", {})
    assert render(once).only("Job")["metadata"]["annotations"] == {"pulumi.com/skipAwait": "true"}


def test_a_schedule_has_a_zone_and_does_not_pile_up(render: Render) -> None:
    spec = render(nightly).only("CronJob")["spec"]
    assert (spec["timeZone"], spec["concurrencyPolicy"], spec["suspend"]) == ("Etc/UTC", "Forbid", False)
    assert spec["startingDeadlineSeconds"] == 600
    replaced = render(lambda: nightly(concurrency=Concurrency.REPLACE, suspended=True)).only("CronJob")["spec"]
    assert (replaced["concurrencyPolicy"], replaced["suspend"]) == ("Replace", True)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: once(module="x", command=["y"]), "module, command"),
        (lambda: once(attempts=0), "attempts"),
        (lambda: nightly(schedule="every day"), "schedule: 'every day'"),
        (lambda: nightly(schedule="61 * * * *"), "schedule: '61"),
        (lambda: nightly(schedule="0 0 2 * * *"), "schedule: '0 0"),
        (
            lambda: ScheduledBatch("n" * 60, {"namespace": "agents", "image": IMAGE, "schedule": "@daily"}),
            "more than 52",
        ),
    ],
)
def test_a_wrong_input_is_named_at_construction(render: Render, make: Any, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        render(make)
