"""Who may do what in Redis: one user per reader, each with the commands and keys that it needs and no others.

| user       | for                              | may                                                      |
|------------|----------------------------------|----------------------------------------------------------|
| `default`  | nobody                           | nothing: who does not log in is refused                  |
| `app`      | api and workers                  | what the service's scripts and modules call, on its keys |
| `scaler`   | KEDA                             | count the members of queues                              |
| `backup`   | the backup job                   | replicate                                                |
| `exporter` | the metrics exporter, if any     | read INFO, slow log and latencies                        |
| `probe`    | the pod's own probes             | PING, without a password                                 |

The rules are those of Redis 7.2 and Valkey 8 (https://redis.io/docs/latest/operate/oss_and_stack/management/security/acl/).
Commands that a script calls are checked as its caller's own, hence the list for `app`.
"""

from __future__ import annotations

APP, SCALER, BACKUP, EXPORTER, PROBE = "app", "scaler", "backup", "exporter", "probe"

KEYS = ("agent-tasks", "{agent-tasks}:*", "shadow:*:{agent-tasks}:*")
"""What `app.infra.keys` makes, with and without the prefix of a shadow release."""
CHANNELS = ("{agent-tasks}:*", "shadow:*:{agent-tasks}:*")
QUEUES = ("agent-tasks", "{agent-tasks}:q:*", "shadow:*:{agent-tasks}:q:*")

SCRIPT_COMMANDS = (
    *("copy", "del", "exists", "expire", "get", "hdel", "hexists", "hget", "hincrby", "hkeys", "hmget", "hset"),
    *(
        "hsetnx",
        "hvals",
        "llen",
        "lpop",
        "lpush",
        "lrange",
        "lrem",
        "ltrim",
        "persist",
        "pexpire",
        "publish",
        "rpush",
        "sadd",
    ),
    *("scard", "set", "srem", "time", "unlink", "xadd", "xrevrange", "zadd", "zcard", "zdiff", "zrange"),
    *("zrangebyscore", "zrem", "zremrangebyscore", "zscore"),
)
"""Called by the service's Lua scripts (`redis.call`)."""
CLIENT_COMMANDS = (
    *("blpop", "exists", "get", "hget", "hgetall", "hmget", "hscan", "hset", "llen", "lpos", "scan", "set", "smembers"),
    *("srem", "sscan", "time", "unlink", "xrange", "xread", "xrevrange", "zcard", "zcount", "zmscore", "zrange"),
    *("zrank", "zrem", "zrevrange", "zrevrangebylex", "zscan", "zscore"),
)
"""Called by the service's modules."""
SESSION_COMMANDS = (
    *("client|setinfo", "eval", "evalsha", "exec", "multi", "ping", "script|load", "subscribe", "unsubscribe"),
)
"""Sent by the client library for a connection, a script, a transaction or a subscription."""


def users(*, exporter: bool) -> str:
    """The ACL file, with `@user@` where the password hashes of a user belong (scripts/redis-users.sh puts them in).

    Deterministic, without a secret. `exporter` adds that user.
    """
    commands = sorted({*SCRIPT_COMMANDS, *CLIENT_COMMANDS, *SESSION_COMMANDS})
    lines = [
        _user("default", "off", "nopass", keys=(), commands=()),
        _user(APP, "on", f"@{APP}@", keys=KEYS, channels=CHANNELS, commands=commands),
        # KEDA sizes a key by EVAL, which Redis takes for a write whatever the script does; what it calls only reads.
        _user(
            SCALER,
            "on",
            f"@{SCALER}@",
            keys=QUEUES,
            commands=("client|setinfo", "eval", "hlen", "llen", "ping", "scard", "type", "zcard"),
        ),
        _user(BACKUP, "on", f"@{BACKUP}@", keys=(), commands=("ping", "psync", "replconf", "sync")),
        _user(PROBE, "on", "nopass", keys=(), commands=("ping",)),
    ]
    if exporter:
        reading = (
            "client|setname",
            "info",
            "latency|histogram",
            "latency|latest",
            "ping",
            "slowlog|get",
            "slowlog|len",
        )
        lines.append(_user(EXPORTER, "on", f"@{EXPORTER}@", keys=(), commands=reading))
    return "\n".join(lines) + "\n"


def with_passwords(acl: str, hashes: dict[str, str]) -> str:
    """The ACL file with SHA-256 hashes of passwords: what scripts/redis-users.sh writes for these users."""
    for user, sha256 in hashes.items():
        acl = acl.replace(f"@{user}@", f"#{sha256}")
    return acl


def _user(
    name: str,
    state: str,
    password: str,
    *,
    keys: tuple[str, ...],
    commands: tuple[str, ...] | list[str],
    channels: tuple[str, ...] = (),
) -> str:
    rules = [
        *("user", name, "reset", state, password),
        *(f"~{pattern}" for pattern in keys),
        "resetchannels",
        *(f"&{pattern}" for pattern in channels),
        "-@all",
        *(f"+{command}" for command in commands),
    ]
    return " ".join(rules)
