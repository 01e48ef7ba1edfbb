"""A stack's manifests as one YAML text, in the order in which they can be applied: for GitOps, linters and reviews.

    python -m stacks.manifests prod > manifests.yaml

Neither Pulumi's engine, nor a passphrase, nor a cluster is asked. Encrypted values of `Pulumi.<stack>.yaml` are not
decrypted: like all secrets they come out as references, which the head of the text lists. `envsubst` fills them in.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from stacks.config import NAMESPACE, REPOSITORY, ConfigError, StackConfig, parse
from stacks.render import MADE_UP, Rendered, SecretInClear, render

_WIDTH = 120
_SECURE = "secure"
"""How Pulumi writes an encrypted value: a mapping with this key alone."""


def configuration(name: str, folder: Path = REPOSITORY) -> StackConfig:
    """The configuration of the stack `name`, with something made up for what is encrypted. Raises `ConfigError`.

    The environment is not asked: the same file gives the same manifests to everybody.
    """
    path = folder / f"Pulumi.{name}.yaml"
    if not path.is_file():
        there = ", ".join(sorted(found.name.split(".")[1] for found in folder.glob("Pulumi.*.yaml")))
        raise ConfigError(f"there is no stack {name}: {path.name} is missing; there are {there}")
    stored: dict[str, Any] = (yaml.safe_load(path.read_text()) or {}).get("config") or {}
    prefix = f"{NAMESPACE}:"
    raw, secret = {}, set()
    for key, value in stored.items():
        if key.startswith(prefix):
            short = key.removeprefix(prefix)
            if _encrypted(value):
                secret.add(short)
            opened = _opened(value, short)
            raw[short] = opened if isinstance(opened, str) else json.dumps(opened)
    return parse(raw, secret=secret, environment={})


def _encrypted(value: Any) -> bool:
    """Whether any part of it is."""
    if isinstance(value, Mapping):
        return set(value) == {_SECURE} or any(_encrypted(part) for part in value.values())
    return False


def _opened(value: Any, key: str) -> Any:
    if isinstance(value, Mapping):
        if set(value) != {_SECURE}:
            return {name: _opened(part, name) for name, part in value.items()}
        if key == "redisUrl":
            raise ConfigError(
                f"{NAMESPACE}:redisUrl: is encrypted, and the manifests must say where KEDA finds that Redis; keep "
                "REDIS_URL in kubernetes.secretStore and give kubernetes.externalRedis"
            )
        return f"{MADE_UP}{key}"
    return value


def text(rendered: Rendered, name: str) -> str:
    """All objects as YAML; what must be filled in stands at the head."""
    head = [f"# The stack {name}, rendered: change Pulumi.{name}.yaml or the components, and render it again."]
    if rendered.references:
        head.append("# Fill in: " + " ".join(reference.strip("${}") for reference in rendered.references))
    documents = [yaml.safe_dump(one, sort_keys=False, width=_WIDTH, allow_unicode=True) for one in rendered.objects]
    return "\n".join(head) + "\n" + "".join(f"---\n{document}" for document in documents)


def main(arguments: list[str]) -> int:
    """Print the manifests of a stack; 0 when they are whole, 2 when its configuration cannot be rendered."""
    if len(arguments) != 1:
        print("usage: python -m stacks.manifests STACK", file=sys.stderr)  # noqa: T201
        return 2
    try:
        made = render(configuration(arguments[0]), arguments[0])
    except (ConfigError, SecretInClear, ValueError) as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 2
    sys.stdout.write(text(made, arguments[0]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
