"""A real Valkey with the users of the component Redis: `url` is the service's own, `admin_url` the test's."""

from __future__ import annotations

import hashlib
from typing import Any, Self

import pytest
import redis

from components.kubernetes.redis_users import APP, BACKUP, EXPORTER, SCALER, users, with_passwords
from tests.support.valkey import ValkeyServer

PASSWORDS = {user: f"password-of-{user}" for user in (APP, SCALER, BACKUP, EXPORTER)}


class GuardedValkey(ValkeyServer):
    """The user `default` stays on: tests look at things that nobody else may see."""

    @property
    def admin_url(self) -> str:
        return super().url

    @property
    def url(self) -> str:
        return self.url_of(APP)

    def url_of(self, user: str) -> str:
        return f"redis://{user}:{PASSWORDS[user]}@127.0.0.1:{self.port}/0"

    def start(self) -> Self:
        super().start()
        hashes = {user: hashlib.sha256(password.encode()).hexdigest() for user, password in PASSWORDS.items()}
        with redis.Redis.from_url(self.admin_url) as admin:
            version = admin.info("server")["redis_version"]
            if tuple(map(int, version.split(".")[:2])) < (7, 2):
                self.close()
                pytest.skip(f"the component Redis is for 7.2 or later; this server is {version}")
            for line in with_passwords(users(exporter=True), hashes).splitlines():
                _, user, *rules = line.split()
                if user != "default":
                    admin.execute_command("ACL", "SETUSER", user, *rules)
        return self

    def refusals(self) -> list[dict[str, Any]]:
        """What was refused, to whom and why, since the last call."""
        with redis.Redis.from_url(self.admin_url) as admin:
            found: list[dict[str, Any]] = admin.acl_log(128)
            admin.acl_log_reset()
        return found
