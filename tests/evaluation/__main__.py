"""`python -m tests.evaluation --url URL`: ask, grade, report.

Exit 0: all thresholds held; 1: one did not; 2: the evaluation could not run.

The API key comes from --key or, better, from SLIPWAY_API_KEY: an argument can be seen by every user of the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from tests.evaluation import dataset, report, thresholds
from tests.evaluation.client import ServiceClient, TurnFailed
from tests.evaluation.dataset import Case
from tests.evaluation.judge import Judge
from tests.evaluation.results import Result, commonest_model, result_of


def arguments(given: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.evaluation", description="Evaluate a running service.")
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument("--url", default="", help="the service, e.g. what `make -s outputs` calls serviceUrl")
    asked.add_argument("--regrade", type=Path, help="a report.json: grade its answers again, asking nobody")
    parser.add_argument(
        "--key", default=os.environ.get("SLIPWAY_API_KEY", ""), help="API key; default: SLIPWAY_API_KEY"
    )
    parser.add_argument("--dataset", type=Path, action="append", help="a YAML file of cases; default: all of datasets/")
    parser.add_argument("--only", default="", help="only cases whose id or category contains this text")
    parser.add_argument("--out", type=Path, default=Path("reports/evaluation"), help="folder of the report")
    parser.add_argument("--concurrency", type=int, default=2, help="cases at a time (default 2)")
    parser.add_argument("--timeout", type=float, default=180, help="seconds that one turn may take (default 180)")
    parser.add_argument("--profile", default="auto", help="thresholds to use; auto: by the model that answered")
    parser.add_argument("--judge-model", default="", help="model that judges too; off by default")
    parser.add_argument("--judge-url", default="https://api.openai.com/v1", help="its OpenAI-compatible server")
    return parser.parse_args(given)


async def evaluate(options: argparse.Namespace, cases: list[Case]) -> list[Result]:
    """All cases, at most `concurrency` at a time, in the data set's order. Says how far it is."""
    slots = asyncio.Semaphore(options.concurrency)
    judge = None
    if options.judge_model:
        judge = Judge(options.judge_url, options.judge_model, os.environ.get("EVAL_JUDGE_API_KEY", ""))
    done = 0

    async def one(client: ServiceClient, case: Case) -> Result:
        nonlocal done
        async with slots:
            result = result_of(case, await client.play(case))
            if judge is not None and case.reference and not result.transcript.error:
                result = replace(result, grades=(*result.grades, await judge.grade(result)))
        done += 1
        print(f"[{done:>3}/{len(cases)}] {report.verdict(result)}", flush=True)
        return result

    async with ServiceClient(options.url, options.key, timeout_seconds=options.timeout) as client:
        await client.check()
        try:
            return list(await asyncio.gather(*(one(client, case) for case in cases)))
        finally:
            if judge is not None:
                await judge.close()


def main(given: list[str] | None = None) -> int:
    options = arguments(given)
    try:
        if options.concurrency < 1:
            raise ValueError("--concurrency must be at least 1")
        if "@" in options.url:
            raise ValueError("--url holds a user or password; give the address alone, and the key in SLIPWAY_API_KEY")
        limits = thresholds.load()
        if options.profile != "auto" and options.profile not in limits.profiles:
            raise ValueError(f"--profile {options.profile}: use auto, {', '.join(limits.profiles)}")
        cases = [
            case for case in dataset.load(options.dataset) if options.only in case.id or options.only in case.category
        ]
        if not cases:
            raise ValueError(f"no case's id or category contains {options.only!r}")
        begun = datetime.now(UTC)
        if options.regrade:
            options.url, results = report.answers(options.regrade, cases)
        else:
            results = asyncio.run(evaluate(options, cases))
        profile = options.profile
        if profile == "auto":
            profile = limits.profile_for(commonest_model(results))
        checks = thresholds.check(limits, profile, results)
    except (TurnFailed, ValueError, OSError) as error:
        print(f"evaluation: {error}", file=sys.stderr)
        return 2
    run = report.Run(options.url, profile, begun, (datetime.now(UTC) - begun).total_seconds(), results, checks)
    page = report.write(run, options.out)
    print(report.summary(run))
    print(f"report: {page}")
    return 0 if all(check.held for check in checks) else 1


if __name__ == "__main__":
    sys.exit(main())
