"""Copies of Redis and Qdrant by the clock, on a disk or in an S3-compatible bucket, and the Jobs that bring them back.

Per data service there are two CronJobs: `<name>-redis` makes copies, `<name>-redis-restore` is suspended for good and
serves as the pattern of a Job that a person starts (`kubectl create job --from`). docs/backup.md has the steps. The
copies are as old as the schedule allows: what was written since is lost with the disk they are to save from.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NotRequired, TypedDict

import pulumi
from pulumi_kubernetes import batch, core, meta

from components.kubernetes import qdrant, redis, redis_users
from components.kubernetes.jobs import check_schedule, cron_name, job_spec
from components.kubernetes.labels import dns_label, labels
from components.kubernetes.parts import DiskArgs, claim, claim_volume, metadata, scratch_volume
from components.kubernetes.pod import (
    Container,
    PlacementArgs,
    ResourcesArgs,
    config_volume,
    container,
    secret_volume,
)

RCLONE_IMAGE = "rclone/rclone:1.71.2"
COPIES = "/copies"
_AT, _SECRET, _TLS, _BUCKET, _DATA = "/scripts", "/run/password", "/run/redis-tls", "/run/bucket", "/data"
_SCHEDULE = "17 */6 * * *"
_DEADLINE_SECONDS = 3_600
_SCRIPTS = ("redis-backup.sh", "redis-restore.sh", "bucket-put.sh", "bucket-get.sh", "qdrant_backup.py")
_PATTERNS = {"redis": r"^redis-[0-9]{8}T[0-9]{6}Z\.rdb$", "qdrant": r"^qdrant-[0-9]{8}T[0-9]{6}Z\.tar$"}
_RESOURCES: ResourcesArgs = {
    **{"cpu": "50m", "cpu_limit": "1", "memory": "64Mi", "memory_limit": "256Mi"},
    **{"storage": "64Mi", "storage_limit": "20Gi"},
}
"""The space on the node is that of one copy on its way to a bucket."""
_SCRATCH = "20Gi"


class RedisSourceArgs(TypedDict):
    """A Redis to copy; the outputs of the component `Redis` fit."""

    host: pulumi.Input[str]
    """Where it answers (`Redis.host`)."""
    pod_host: pulumi.Input[str]
    """Name of its pod, ready or not (`Redis.pod_host`): a restore asks there whether it runs."""
    secret_name: pulumi.Input[str]
    """Secret with the password of the user `backup` under `backup` (`Redis.secret_name`)."""
    data_claim: pulumi.Input[str]
    """Its disk (`Redis.data_claim`)."""
    image: NotRequired[pulumi.Input[str]]
    """Image with its client, by digest; default: that of the component `Redis`."""
    tls_secret_name: NotRequired[pulumi.Input[str]]
    """Secret with `ca.crt`, where it speaks TLS."""


class QdrantSourceArgs(TypedDict):
    """A Qdrant to copy; the outputs of the component `Qdrant` fit."""

    url: pulumi.Input[str]
    """Where it answers (`Qdrant.url`)."""
    secret_name: pulumi.Input[str]
    """Secret with its API key under `api_key` (`Qdrant.secret_name`)."""
    image: pulumi.Input[str]
    """Image with Python 3.11 or later, by digest; the service's own fits."""


class BucketArgs(TypedDict):
    """A bucket of an S3-compatible store."""

    name: pulumi.Input[str]
    """Name of the bucket."""
    folder: NotRequired[pulumi.Input[str]]
    """Folder in the bucket; default: the component's name."""
    endpoint: NotRequired[pulumi.Input[str]]
    """URL of the store; default: AWS."""
    region: NotRequired[pulumi.Input[str]]
    """Region of the bucket."""
    secret_name: NotRequired[pulumi.Input[str]]
    """Secret with a credentials file of AWS under `credentials`; without, the pod's own identity counts."""
    image: NotRequired[pulumi.Input[str]]
    """Image of rclone, by digest."""


class BackupArgs(TypedDict):
    """What backups need to know: `redis`, `qdrant` or both; `disk` or `bucket`."""

    namespace: pulumi.Input[str]
    """Namespace that everything goes into: that of the data services."""
    redis: NotRequired[RedisSourceArgs]
    """The Redis to copy."""
    qdrant: NotRequired[QdrantSourceArgs]
    """The Qdrant to copy."""
    disk: NotRequired[DiskArgs]
    """A disk for the copies; default 20Gi, kept. It saves from mistakes, not from the loss of the storage itself."""
    bucket: NotRequired[BucketArgs]
    """A bucket for the copies, in place of a disk."""
    schedule: NotRequired[pulumi.Input[str]]
    """When copies are made, as a cron expression in UTC; default: every six hours."""
    keep: NotRequired[int]
    """Copies of each service that stay; default 28, a week of the default schedule."""
    placement: NotRequired[PlacementArgs]
    """Where pods may run. With a disk: where it can be attached."""


class Backup(pulumi.ComponentResource):
    """Backups of one stack.

    Outputs: `jobs`, the CronJobs that make copies; `restores`, those that Jobs are made from to bring one back.
    """

    jobs: pulumi.Output[Mapping[str, str]]
    restores: pulumi.Output[Mapping[str, str]]

    def __init__(self, name: str, args: BackupArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("slipway:kubernetes:Backup", name, {}, opts)
        _check(name, args)
        child = pulumi.ResourceOptions(parent=self)
        self._name, self._args, self._child = name, args, child
        scripts = core.v1.ConfigMap(
            f"{name}-scripts",
            metadata=metadata("backup", name, args["namespace"]),
            immutable=True,
            data={script: (redis.SCRIPTS / script).read_text() for script in _SCRIPTS},
            opts=child,
        )
        self._volumes = [config_volume("scripts", scripts.metadata["name"]), *self._copies()]
        jobs, restores = {}, {}
        if "redis" in args:
            jobs["redis"], restores["redis"] = self._redis(args["redis"])
        if "qdrant" in args:
            jobs["qdrant"], restores["qdrant"] = self._qdrant(args["qdrant"])
        self.jobs, self.restores = pulumi.Output.from_input(jobs), pulumi.Output.from_input(restores)
        self.register_outputs({"jobs": self.jobs, "restores": self.restores})

    def _copies(self) -> list[core.v1.VolumeArgs]:
        """Where copies lie in a pod: on the disk, or on their way to and from the bucket."""
        bucket = self._args.get("bucket")
        if bucket is None:
            disk = self._args.get("disk", {})
            made = claim(f"{self._name}-copies", "backup", self._args["namespace"], disk, "20Gi", self._child)
            return [claim_volume("copies", made.metadata["name"])]
        credentials = [secret_volume("bucket", bucket["secret_name"])] if "secret_name" in bucket else []
        return [scratch_volume("copies", _SCRATCH), *credentials]

    def _redis(self, source: RedisSourceArgs) -> tuple[str, str]:
        volumes, reads = [secret_volume("password", source["secret_name"])], {"password": _SECRET}
        env: dict[str, pulumi.Input[str]] = {"REDIS_PORT": str(redis.PORT)}
        if "tls_secret_name" in source:
            volumes.append(secret_volume("tls", source["tls_secret_name"]))
            reads["tls"], env["TLS_CA"] = _TLS, f"{_TLS}/ca.crt"
        image = source.get("image", redis.IMAGE)
        save = self._step(
            ("save", image, ["sh", f"{_AT}/redis-backup.sh"]),
            {**env, "REDIS_HOST": source["host"], "PASSWORD_FILE": f"{_SECRET}/{redis_users.BACKUP}"},
            reads,
        )
        bring_back = self._step(
            ("restore", image, ["sh", f"{_AT}/redis-restore.sh"]),
            {**env, "REDIS_HOST": source["pod_host"], "DATA": _DATA},
            reads,
            {"data": _DATA},
        )
        return self._pair("redis", save, bring_back, volumes, [*volumes, claim_volume("data", source["data_claim"])])

    def _qdrant(self, source: QdrantSourceArgs) -> tuple[str, str]:
        volumes = [secret_volume("password", source["secret_name"])]
        env = {"QDRANT_URL": source["url"], "API_KEY_FILE": f"{_SECRET}/{qdrant.API_KEY_FILE}"}
        save, bring_back = (
            self._step(
                (what, source["image"], ["python3", f"{_AT}/qdrant_backup.py", what]), env, {"password": _SECRET}
            )
            for what in ("save", "restore")
        )
        return self._pair("qdrant", save, bring_back, volumes, volumes)

    def _step(
        self,
        what: tuple[str, pulumi.Input[str], list[str]],
        env: Mapping[str, pulumi.Input[str]],
        reads: Mapping[str, str],
        writes: Mapping[str, str] | None = None,
    ) -> Container:
        """One container; `what` is its name, its image and its command."""
        name, image, command = what
        return Container(
            name=name,
            image=image,
            command=command,
            env={"FOLDER": COPIES, "KEEP": str(_keep(self._args)), "BACKUP": "", **env},
            mounts={"copies": COPIES, **(writes or {})},
            read_only_mounts={"scripts": _AT, **reads},
            resources={},
            defaults=_RESOURCES,
            probes=None,
        )

    def _bucket_step(self, service: str, script: str, bucket: BucketArgs) -> Container:
        path = pulumi.Output.concat("bucket:", bucket["name"], "/", bucket.get("folder", self._name))
        env: dict[str, pulumi.Input[str]] = {
            "REMOTE": path,
            "PATTERN": _PATTERNS[service],
            "RCLONE_CONFIG": "/tmp/rclone.conf",  # noqa: S108 - a volume of the pod's own; there is no such file
            "RCLONE_CONFIG_BUCKET_TYPE": "s3",
            "RCLONE_CONFIG_BUCKET_PROVIDER": "Other" if "endpoint" in bucket else "AWS",
            "RCLONE_CONFIG_BUCKET_ENV_AUTH": "true",
            "RCLONE_CONFIG_BUCKET_NO_CHECK_BUCKET": "true",  # whoever may write copies need not make buckets
        }
        if "endpoint" in bucket:
            env["RCLONE_CONFIG_BUCKET_ENDPOINT"] = bucket["endpoint"]
        if "region" in bucket:
            env["RCLONE_CONFIG_BUCKET_REGION"] = bucket["region"]
        if "secret_name" in bucket:
            env["AWS_SHARED_CREDENTIALS_FILE"] = f"{_BUCKET}/credentials"
        return self._step(
            (script.removesuffix(".sh"), bucket.get("image", RCLONE_IMAGE), ["sh", f"{_AT}/{script}"]),
            env,
            {"bucket": _BUCKET} if "secret_name" in bucket else {},
        )

    def _pair(
        self,
        service: str,
        save: Container,
        bring_back: Container,
        save_volumes: list[core.v1.VolumeArgs],
        restore_volumes: list[core.v1.VolumeArgs],
    ) -> tuple[str, str]:
        """The two CronJobs of a service, by name. With a bucket, a pod has two steps: to it, or from it."""
        bucket = self._args.get("bucket")
        saving, restoring = [save], [bring_back]
        if bucket is not None:
            saving.append(self._bucket_step(service, "bucket-put.sh", bucket))
            restoring.insert(0, self._bucket_step(service, "bucket-get.sh", bucket))
        return (
            self._cron_job(f"{self._name}-{service}", saving, save_volumes, suspended=False),
            self._cron_job(f"{self._name}-{service}-restore", restoring, restore_volumes, suspended=True),
        )

    def _cron_job(
        self, name: str, steps: list[Container], volumes: list[core.v1.VolumeArgs], *, suspended: bool
    ) -> str:
        batch.v1.CronJob(
            name,
            metadata=metadata("backup", name, self._args["namespace"], fixed=name),
            spec=batch.v1.CronJobSpecArgs(
                schedule=self._args.get("schedule", _SCHEDULE),
                time_zone="Etc/UTC",
                suspend=suspended,
                concurrency_policy="Forbid",
                starting_deadline_seconds=3_600,
                successful_jobs_history_limit=3,
                failed_jobs_history_limit=3,
                job_template=batch.v1.JobTemplateSpecArgs(
                    metadata=meta.v1.ObjectMetaArgs(labels=labels("backup", name)),
                    spec=job_spec(
                        "backup",
                        name,
                        init_containers=[container(step) for step in steps[:-1]],
                        containers=[container(steps[-1])],
                        volumes=[*self._volumes, *volumes],
                        placement=self._args.get("placement"),
                        # A restore that failed halfway is looked at by a person before it is tried again.
                        attempts=1 if suspended else 3,
                        deadline_seconds=_DEADLINE_SECONDS,
                    ),
                ),
            ),
            opts=self._child,
        )
        return name


def _keep(args: BackupArgs) -> int:
    return int(args.get("keep", 28))


def _check(name: str, args: BackupArgs) -> None:
    cron_name(dns_label(f"{name}-qdrant-restore", "name of the backup"), "name of the backup")
    if "redis" not in args and "qdrant" not in args:
        raise ValueError("redis, qdrant: there is nothing to copy; give one or both")
    if "disk" in args and "bucket" in args:
        raise ValueError("disk, bucket: give one of them, the other is left out")
    if _keep(args) < 1:
        raise ValueError(f"keep: {_keep(args)} would leave no copy; give 1 or more")
    check_schedule(args.get("schedule", _SCHEDULE), "schedule")
