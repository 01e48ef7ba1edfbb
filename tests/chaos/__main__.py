"""`python -m tests.chaos`: chaos from the command line; the verdict is the last line, the exit code says it too.

Two parts of the same size, each with its own Valkey and half of runs and faults: orderly restarts under AOF
`everysec`, then SIGKILL under `always`. Nothing may be lost in either. A short third part kills the Valkey under
`everysec`, which may lose its last second: it tells what was lost, and asks only that no fence was broken.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import signal
import sys
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Literal

import uvloop

from tests.chaos import campaign, plan
from tests.chaos.checker import Violation

LEASE_SECONDS = 1.0
TOOLS = ("put", "put", "transfer", "charge")
_PARTS: tuple[tuple[Literal["everysec", "always"], Literal["orderly", "kill"]], ...] = (
    ("everysec", "orderly"),
    ("always", "kill"),
)
"""AOF policy, and the restarts of the Valkey that it promises to survive."""
_CRASHES: dict[plan.Kind, int] = {"restart": 6, "kill": 1, "freeze": 1}
"""Faults of the third part: crashes of the Valkey, with workers that die or freeze around them."""
_TOLD_IN_FULL = 3
"""Threads whose whole history is printed; all of them are in the report's folder."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=2000, help="messages to ask (default: %(default)s)")
    parser.add_argument("--faults", type=int, default=500, help="faults to inject (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=None, help="repeats a plan (default: a new one, which is printed)")
    parser.add_argument("--workers", type=int, default=4, help="worker processes (default: %(default)s)")
    parser.add_argument("--reports", type=Path, default=Path("reports/chaos"), help="where violations are written")
    asked = parser.parse_args()
    seed = random.SystemRandom().randrange(10**9) if asked.seed is None else asked.seed
    print(f"chaos: runs={asked.runs} faults={asked.faults} seed={seed} (again: --seed {seed})", flush=True)
    try:
        return uvloop.run(_main(asked, seed))
    except (RuntimeError, ExceptionGroup):  # a process that does not come back, or a mistake of ours
        traceback.print_exc(file=sys.stdout)
        print(f"chaos: FAIL seed={seed} given up, see above", flush=True)
        return 1


async def _main(asked: argparse.Namespace, seed: int) -> int:
    task = asyncio.current_task()
    assert task is not None
    # Whoever stops us, such as `timeout`: the processes that we started must not stay behind.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    began = time.monotonic()
    found: list[Violation] = []
    totals: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    for number, (fsync, restart) in enumerate(_PARTS):
        share = (asked.runs + number) // 2, (asked.faults + number) // 2
        made = plan.make(seed + number, runs=share[0], faults=share[1], lease=LEASE_SECONDS, tools=TOOLS)
        print(f"part {number + 1}: AOF {fsync}, restarts {restart}, {share[0]} runs, {share[1]} faults", flush=True)
        report = await campaign.run(made, fsync=fsync, restart=restart, workers=asked.workers, say=_say)
        found += report.verdict.violations
        totals.update(report.verdict.figures)
        totals["runs"] += sum(len(turn.runs) for turn in report.history.turns.values())
        totals["faults"] += report.faults
        kinds.update(report.kinds)
        _tell(report, asked.reports / f"{seed}-{number + 1}")
    broken, crashes = await _crashes(asked, seed + len(_PARTS))
    found += broken
    totals["faults"] += crashes
    lost = _count(found, "lost")
    second = _count(found, "second-effect")
    print("faults: " + " ".join(f"{kind}={count}" for kind, count in sorted(kinds.items())))
    print("seen: " + " ".join(f"{name}={count}" for name, count in sorted(totals.items())))
    word = "PASS" if not found else "FAIL"
    print(
        f"chaos: {word} runs={totals['runs']} faults={totals['faults']} seed={seed} lost={lost} "
        f"second_effects={second} violations={len(found)} seconds={time.monotonic() - began:.0f}",
        flush=True,
    )
    return 0 if not found else 1


async def _crashes(asked: argparse.Namespace, seed: int) -> tuple[list[Violation], int]:
    """The third part: what a Valkey that is killed under `everysec` loses, told; the violations of fences, returned."""
    runs, faults = max(1, asked.runs // 40), max(1, asked.faults // 40)
    print(
        f"part 3: AOF everysec, restarts kill, {runs} runs, {faults} faults; losses are told, not refused", flush=True
    )
    made = plan.make(seed, runs=runs, faults=faults, lease=LEASE_SECONDS, tools=TOOLS, weights=_CRASHES)
    report = await campaign.run(made, fsync="everysec", restart="kill", workers=asked.workers, say=_say)
    kinds = Counter(violation.kind for violation in report.verdict.violations)
    told = " ".join(f"{kind}={count}" for kind, count in sorted(kinds.items())) or "nothing"
    print(f"part 3: {report.kinds.get('restart', 0)} crashes of the Valkey; lost or different: {told}", flush=True)
    broken = [violation for violation in report.verdict.violations if violation.kind == "broken-fence"]
    for violation in broken:
        print(f"VIOLATION {violation}\n{report.history.tell(violation.tag)}")
    return broken, report.faults


def _count(found: list[Violation], kind: str) -> int:
    return sum(violation.kind == kind for violation in found)


def _tell(report: campaign.Report, folder: Path) -> None:
    """Print what was found with the histories behind it, and keep all of them as files."""
    by_talk: dict[str, list[Violation]] = {}
    for violation in report.verdict.violations:
        print(f"VIOLATION {violation}")
        if violation.tag:
            by_talk.setdefault(report.history.turns[violation.tag].talk, []).append(violation)
    if not report.verdict.violations:
        return
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plan.json").write_text(plan.as_json(report.history.plan))
    (folder / "notes.json").write_text(json.dumps(report.history.notes, indent=0))
    for name, log in report.logs.items():
        (folder / name).write_text(log)
    for number, (talk, violations) in enumerate(by_talk.items()):
        text = "\n".join([*map(str, violations), report.history.tell(violations[0].tag)])
        (folder / f"{talk}.txt").write_text(text + "\n")
        if number < _TOLD_IN_FULL:
            print(text)
    print(f"the history of {len(by_talk)} threads and every process's log are in {folder}")


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
