"""Names and labels of what a stack puts into its namespace.

The labels are Kubernetes' recommended ones. A selector cannot be changed once it exists, so it holds only what stays
the same for life: the name of the application, the component and its instance; never a version.
"""

from __future__ import annotations

import re

NAME, COMPONENT, INSTANCE = "app.kubernetes.io/name", "app.kubernetes.io/component", "app.kubernetes.io/instance"
PART_OF, MANAGED_BY = "app.kubernetes.io/part-of", "app.kubernetes.io/managed-by"
APPLICATION = "slipway"

_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


def selector(component: str, instance: str) -> dict[str, str]:
    """What selects the pods of one workload. `component` is its kind (`api`, `redis`), `instance` which one."""
    return {NAME: APPLICATION, COMPONENT: component, INSTANCE: instance}


def labels(component: str, instance: str) -> dict[str, str]:
    """The labels of every object of one workload; `selector` is a part of them."""
    return {**selector(component, instance), PART_OF: APPLICATION, MANAGED_BY: "pulumi"}


def dns_label(name: str, what: str) -> str:
    """`name`, when Kubernetes takes it as the name of a Service. Raises ValueError that calls it `what` otherwise."""
    if not _DNS_LABEL.fullmatch(name):
        raise ValueError(
            f"{what}: {name!r} is no name in Kubernetes; take 1 to 63 lower-case letters, digits and dashes, "
            "beginning and ending with a letter or digit"
        )
    return name
