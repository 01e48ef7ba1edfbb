"""`make bench`: measures and writes docs/benchmarks.md. Names of sections as arguments choose some of them."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys

from tests.benchmarks import bench_agent, bench_platform, bench_runs, bench_streams
from tests.benchmarks.bench_platform import PlatformFigures
from tests.benchmarks.page import machine, table, verdict, write
from tests.support.service import ROOT


def agent() -> str:
    """Section: the built-in graph, and where its time goes."""
    figures = bench_agent.measure()
    rows = [
        [str(clients), f"{one.p50:.0f} / {one.p95:.0f}", f"{one.per_second:.1f}"]
        for clients, one in figures.service.items()
    ]
    parts = sorted(figures.worker_cpu_ms_by_part.items(), key=lambda part: -part[1])
    return f"""## The built-in agent against a scripted model

The built-in graph: classify, plan by a model, search by word and meaning, answer by a model, validate; the model is a
scripted server on the same cores that answers at once, vectors are in the local vector store. {machine()}

{table(["clients", "`/chat` p50 / p95 ms", "runs/s"], rows)}

The worker spends {figures.worker_cpu_ms:.0f} ms of CPU per run, by a sampling profile:

{table(["where", "ms per run"], [[name, f"{spent:.1f}"] for name, spent in parts])}
"""


def checkpoints() -> str:
    """Section: the checkpoint saver beside the one in memory and the published ones for plain Redis."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.bench_checkpoints"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    measured = {(line["saver"], line["operation"]): line for line in lines if "operation" in line}
    savers = list(dict.fromkeys(saver for saver, _ in measured))
    aims = {"put": 0.75, "put_writes": 0.5, "get": 1.3}
    rows, targets = [], []
    for operation, aim in aims.items():
        by_saver = [measured[saver, operation] for saver in savers]
        rows.append([operation, *(f"{one['p50_ms']:.2f} / {one['p99_ms']:.2f}" for one in by_saver)])
        ours = measured["RedisSaver", operation]["p50_ms"]
        targets.append([f"{operation}, p50", f"≤ {aim} ms", f"{ours:.2f} ms", verdict(ours <= aim)])
    sizes = [measured[saver, "put"]["bytes_per_checkpoint"] for saver in savers]
    rows.append(["KiB per checkpoint", *(f"{size / 1024:.0f}" if size else "-" for size in sizes)])
    missing = "".join(
        f"\n{line['saver']} could not be measured here: {line['missing']}.\n" for line in lines if "missing" in line
    )
    return f"""## Checkpoints

50 messages of 300 characters, all rewritten at each step, one pending write per step, append-only file synced every
second; each saver in a process of its own, in turns of a few steps, p50 / p99 in ms. `RedisSaver` is this repository's:
fenced, a thread's life renewed with each write. The published savers have no fence, and
`langgraph-checkpoint-redis` is not here because it does not start on a server without modules. {machine()}

{table(["operation", *savers], rows)}
{missing}
{table(["figure", "target", "measured", ""], targets)}
"""


def _platform(figures: PlatformFigures) -> str:
    limit = 600 if figures.cold else 180
    up = "nothing but python3, make and git" if figures.cold else "tools and packages in the cache"
    rows = [
        [
            f"first `make up`, {up}",
            f"< {limit // 60} min",
            f"{figures.first_up_s:.0f} s",
            verdict(figures.first_up_s < limit),
        ],
        ["`make up` again: no changes", "< 15 s", f"{figures.second_up_s:.1f} s", verdict(figures.second_up_s < 15)],
        ["the README's question, bundled model", "< 60 s", f"{figures.answer_s:.1f} s", verdict(figures.answer_s < 60)],
        ["`make down`", "-", f"{figures.down_s:.1f} s", ""],
    ]
    memory = "" if figures.cold else _memory(figures, rows)
    return f"""A fresh clone on this machine. {machine()}

{table(["figure", "target", "measured", ""], rows)}
{memory}"""


def _memory(figures: PlatformFigures, rows: list[list[str]]) -> str:
    """Adds the rows of memory, which does not depend on how the tools came; gives its parts in a sentence."""
    total, later = f"{figures.total_mib:.0f} MiB", f"{figures.answered_mib:.0f} MiB"
    rows += [
        [
            "idle memory after `make up`, without the language model",
            "< 500 MiB",
            total,
            verdict(figures.total_mib < 500),
        ],
        ["idle memory after an answer, without the language model", "-", later, ""],
    ]
    parts = sorted(figures.memory_mib.items(), key=lambda part: -part[1])
    listed = ", ".join(f"{name} {size:.0f}" for name, size in parts)
    return f"""
Memory is proportional set size, in MiB: {listed}; the language model's server {figures.model_mib:.0f}.
"""


def platform() -> str:
    """Section: `make up` on a fresh clone where the tools are cached."""
    return f"## The local platform\n\n{_platform(bench_platform.measure())}"


def cold() -> str:
    """Section: `make up` on a machine that has nothing. Ten minutes."""
    return f"## The local platform on a bare machine\n\n{_platform(bench_platform.measure(cold=True))}"


SECTIONS = {
    "platform": platform,
    "cold": cold,
    "runs": bench_runs.section,
    "streams": bench_streams.section,
    "agent": agent,
    "checkpoints": checkpoints,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("sections", nargs="*", help=f"of {', '.join(SECTIONS)}; default: all but cold")
    names = parser.parse_args().sections or [name for name in SECTIONS if name != "cold"]
    if unknown := set(names) - SECTIONS.keys():
        parser.error(f"there is no section {', '.join(sorted(unknown))}; use {', '.join(SECTIONS)}")
    for name in names:
        print(f"bench: {name}", file=sys.stderr)
        text = SECTIONS[name]()
        write(name, text)
        print(text)


if __name__ == "__main__":
    main()
