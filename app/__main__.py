"""`python -m app api` serves HTTP, `python -m app worker` executes runs; both stop cleanly at SIGTERM."""

from __future__ import annotations

import sys

from app.infra import logging, settings, telemetry
from app.infra.errors import ConfigurationError

_COMMANDS = ("api", "worker")


def main(arguments: list[str]) -> int:
    """Run the command; 0 after a clean stop, 2 for a wrong command or setting."""
    if len(arguments) != 1 or arguments[0] not in _COMMANDS:
        print(f"usage: python -m app {'|'.join(_COMMANDS)}", file=sys.stderr)  # noqa: T201
        return 2
    try:
        found = settings.settings()
        logging.configure(found.service)
        telemetry.configure(found, process=arguments[0])
        if arguments[0] == "api":
            from app.api.server import serve

            serve(found)
        else:
            from app.runs.process import work

            work(found)
    except ConfigurationError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 2
    finally:
        telemetry.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
