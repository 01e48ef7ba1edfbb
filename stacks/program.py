"""The program: configuration in, platform built, outputs out."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pulumi

from stacks import config, local
from stacks.config import PlatformName, StackConfig
from stacks.outputs import Platform, export

BUILDERS: Mapping[PlatformName, Callable[[StackConfig], Platform]] = {PlatformName.LOCAL: local.build}
"""Who builds which platform."""


def run() -> None:
    """Build the stack. A wrong configuration ends it with one line per mistake and no traceback."""
    try:
        stack = config.read()
    except config.ConfigError as error:
        raise pulumi.RunError(str(error)) from None
    export(stack, BUILDERS[stack.platform](stack))
