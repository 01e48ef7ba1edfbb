"""How many connections an api process may hold open."""

from __future__ import annotations

import resource

import pytest

from app.api.server import allow_descriptors


def test_a_low_limit_of_open_files_is_raised_as_far_as_the_machine_allows() -> None:
    """Shells and supervisors often start processes with 1,024: the thousandth stream would be refused."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard <= 1_024:
        pytest.fail(f"this machine allows {hard} open files; raise its hard limit to run the tests")
    resource.setrlimit(resource.RLIMIT_NOFILE, (1_024, hard))
    try:
        allow_descriptors()
        raised, same = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert raised == (65_536 if hard == resource.RLIM_INFINITY else min(65_536, hard))
        assert same == hard
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
