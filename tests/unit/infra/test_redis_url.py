"""A REDIS_URL that cannot be read stops the start with one line that does not quote it."""

from __future__ import annotations

import pytest

from app.infra.errors import ConfigurationError
from app.infra.settings import load


@pytest.mark.parametrize(
    "url",
    [
        "redis://:pass/word@host:6379/0",
        "redis://:password@host:port/0",
        "redis://host:99999/0",
        "unix:///s?db=password",
    ],
)
def test_an_unreadable_redis_url_is_refused_without_quoting_it(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """The client's own error names what it takes for the port: the part of a password before its slash."""
    monkeypatch.setenv("REDIS_URL", url)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-used")
    with pytest.raises(ConfigurationError) as refused:
        load(env_file=None)
    told = str(refused.value)
    assert told.startswith("REDIS_URL: cannot be read")
    assert "pass" not in told.partition("example")[0].replace("its password", "")
