"""What processes have used, from /proc: CPU time does not depend on what else the machine does, wall time does."""

from __future__ import annotations

import os
from pathlib import Path

from tests.support.service import Service


def cpu_seconds(service: Service) -> dict[str, float]:
    """CPU time that each process of a service has used; that of all its workers together."""
    used = {"api": _cpu(service.api.pid), "Valkey": _cpu(service.valkey.pid)}
    if service.workers:
        used["worker"] = sum(_cpu(worker.pid) for worker in service.workers)
    return used


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_kib(pid: int) -> int:
    """Resident memory of a process."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1])
    raise RuntimeError(f"/proc/{pid}/smaps_rollup tells no Rss")
