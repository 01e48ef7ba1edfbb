"""The command `slipway` and its parts.

Exit codes: 0 done; 1 not found, refused or not reachable; 2 a wrong command or setting; 130 interrupted.
"""

from __future__ import annotations

import typer

from app.cli import crons, dead_letters, queue, runs, tenants, threads

app = typer.Typer(
    name="slipway",
    help="Look at the runs, threads and queues of a service, and mend them. Reads the service's settings (REDIS_URL…).",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,  # it would print local variables, which hold what users wrote
)
app.add_typer(runs.app, name="runs")
app.add_typer(dead_letters.app, name="dead-letter")
app.add_typer(threads.app, name="threads")
app.add_typer(crons.app, name="crons")
app.add_typer(tenants.app, name="tenants")
app.command("queue")(queue.queue)


def main() -> None:
    """Run the command that the arguments name; ends the process."""
    app(prog_name="slipway")
