"""Three components by themselves: a Redis, its backups in a bucket, and a nightly batch.

cd examples/three_components && pulumi stack init try
pulumi config set image registry.example.com/agent@sha256:…
openssl rand -hex 32 | pulumi config set --secret redisPassword
PYTHONPATH=../.. pulumi up
"""

from __future__ import annotations

import pulumi

from components.kubernetes.backup import Backup
from components.kubernetes.batch import ScheduledBatch
from components.kubernetes.redis import Redis

config = pulumi.Config()
namespace = config.get("namespace") or "agents"

redis = Redis(
    "queue",
    {
        "namespace": namespace,
        "password": config.require_secret("redisPassword"),
        "maxmemory_mb": 512,
        "disk": {"size": "10Gi"},
    },
)

backup = Backup(
    "backup",
    {
        "namespace": namespace,
        "redis": {
            "host": redis.host,
            "pod_host": redis.pod_host,
            "secret_name": redis.secret_name,
            "data_claim": redis.data_claim,
        },
        "bucket": {"name": "agents-backup", "endpoint": "https://s3.example.com", "secret_name": "bucket-credentials"},
        "schedule": "7 * * * *",
        "keep": 48,
    },
)

report = ScheduledBatch(
    "report",
    {
        "namespace": namespace,
        "image": config.require("image"),
        "module": "agent.nightly_report",
        "schedule": "30 2 * * *",
        "time_zone": "Europe/Berlin",
    },
)

pulumi.export("redis", redis.host)
pulumi.export("backups", backup.jobs)
pulumi.export("report", report.cron_job_name)
