"""`python -m app api` serves HTTP, `python -m app worker` executes runs; both stop cleanly at SIGTERM.

`python -m app health api|worker` says by its exit code whether such a process on this machine lives: for health
checks of containers. `python -m app bootstrap …` makes the secrets of a deployment: see `app.infra.bootstrap`.
"""

from __future__ import annotations

import signal
import sys

_COMMANDS = (["api"], ["worker"], ["health", "api"], ["health", "worker"])


def main(arguments: list[str]) -> int:
    """Run the command; 0 after a clean stop, 1 for a sick process, 2 for a wrong command or setting."""
    if arguments not in _COMMANDS and arguments[:1] != ["bootstrap"]:
        print(f"usage: python -m app {' | '.join(' '.join(words) for words in _COMMANDS)} | bootstrap", file=sys.stderr)  # noqa: T201
        return 2
    # Imported where they are needed: a health check must not load what only the service uses.
    from app.infra import settings
    from app.infra.errors import ConfigurationError, Unavailable

    try:
        if arguments[0] == "bootstrap":
            from app.infra import bootstrap

            bootstrap.main(arguments[1:])
            return 0
        found = settings.settings()
        if arguments[0] == "health":
            from app.infra.health import lives

            return 0 if lives(arguments[1], found.service) else 1
        # Until the process has handlers of its own: the first process of a container ignores what it does not handle.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        from app.infra import logging, telemetry

        logging.configure(found.service)
        telemetry.configure(found, process=arguments[0])
        try:
            if arguments[0] == "api":
                from app.api.server import serve

                serve(found)
            else:
                from app.runs.process import work

                work(found)
        finally:
            telemetry.shutdown()
    except ConfigurationError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 2
    except Unavailable as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
