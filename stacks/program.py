"""The program: configuration in, platform built, outputs out."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pulumi

from stacks import config
from stacks.config import PlatformName, StackConfig
from stacks.outputs import Platform, export


def _local(stack: StackConfig) -> Platform:
    from stacks import local

    return local.build(stack)


def _kubernetes(stack: StackConfig) -> Platform:
    from stacks import kubernetes

    return kubernetes.build(stack)


BUILDERS: Mapping[PlatformName, Callable[[StackConfig], Platform]] = {
    PlatformName.LOCAL: _local,
    PlatformName.KUBERNETES: _kubernetes,
}
"""Who builds which platform; each is imported only where it is built."""


def run() -> None:
    """Build the stack. A wrong configuration ends it with one line per mistake and no traceback."""
    try:
        stack = config.read()
    except config.ConfigError as error:
        raise pulumi.RunError(str(error)) from None
    export(stack, BUILDERS[stack.platform](stack))
