"""The secrets that a deployment without Pulumi makes for itself, and settings read from files."""

from __future__ import annotations

import re
import stat
from pathlib import Path

import pytest

from app.infra import bootstrap, settings
from app.infra.auth import key_id_of
from app.infra.errors import ConfigurationError


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_redis_and_the_service_are_told_the_same_password(tmp_path: Path) -> None:
    """256 bits of it, made here; the key is one that the service recognises."""
    bootstrap.write_secrets(tmp_path, redis="redis:6379")
    made = contents(tmp_path)
    password = made["redis_password"].strip()
    assert len(password) == 43
    assert made["redis.conf"] == f"requirepass {password}\n"
    assert made["redis_url"] == f"redis://:{password}@redis:6379/0\n"
    assert key_id_of(made["api_key"].strip())


def test_a_second_start_changes_no_secret(tmp_path: Path) -> None:
    """It would lock everybody out; only where Redis is may be another place."""
    bootstrap.write_secrets(tmp_path, redis="redis:6379")
    before = contents(tmp_path)
    bootstrap.write_secrets(tmp_path, redis="elsewhere:6380")
    after = contents(tmp_path)
    assert after["redis_url"] == before["redis_url"].replace("redis:6379", "elsewhere:6380")
    assert {**after, "redis_url": ""} == {**before, "redis_url": ""}


def test_only_what_redis_needs_is_readable_by_its_group(tmp_path: Path) -> None:
    """The file for Redis is 0440; every other one is its owner's alone."""
    bootstrap.write_secrets(tmp_path, redis="redis:6379")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {"redis_password": 0o400, "redis.conf": 0o440, "redis_url": 0o400, "api_key": 0o400}


@pytest.mark.parametrize("name", ["api_key", "redis_password"])
def test_a_damaged_secret_is_refused_without_being_shown(tmp_path: Path, name: str) -> None:
    """A line break in a password would be another line of Redis's configuration."""
    (tmp_path / name).write_text("hunter2\nsave 1 1")
    with pytest.raises(ConfigurationError, match=f"{name}.*remove the file") as refused:
        bootstrap.write_secrets(tmp_path, redis="redis:6379")
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("address", ["redis", "redis:", "redis:6379/1", "re dis:1"])
def test_an_address_of_another_form_is_refused(tmp_path: Path, address: str) -> None:
    """And nothing is written."""
    with pytest.raises(ConfigurationError, match="host:port"):
        bootstrap.write_secrets(tmp_path, redis=address)
    assert not contents(tmp_path)


def test_without_a_folder_it_says_which_setting_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Secrets never land in some default place."""
    monkeypatch.delenv("SECRETS_PATH", raising=False)
    with pytest.raises(ConfigurationError, match="SECRETS_PATH is not set"):
        bootstrap.main(["secrets", "--redis", "redis:6379"])


def test_settings_come_from_files_where_the_environment_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty variable says nothing; one with a value wins."""
    (tmp_path / "redis_url").write_text("redis://file:1/0\n")
    monkeypatch.setenv("SECRETS_PATH", str(tmp_path))
    monkeypatch.setenv("REDIS_URL", "")
    assert settings.load(None).redis.url.get_secret_value() == "redis://file:1/0"
    monkeypatch.setenv("REDIS_URL", "redis://variable:1/0")
    assert settings.load(None).redis.url.get_secret_value() == "redis://variable:1/0"


def test_a_folder_of_secrets_that_is_not_there_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Going on without the secrets would look like a wrong password later."""
    monkeypatch.setenv("SECRETS_PATH", "/nowhere")
    with pytest.raises(ConfigurationError, match=re.escape("SECRETS_PATH=/nowhere")):
        settings.load(None)
