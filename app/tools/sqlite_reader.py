"""Reading an SQLite database, and nothing but reading.

The fence is SQLite's own: the file is opened read-only, the authorizer allows a SELECT over known tables with known
functions and nothing else, and limits bound time, rows and the size of any value. No text of SQL is inspected.
See https://www.sqlite.org/security.html.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final

from app.infra.errors import ConfigurationError
from app.tools.rows import Rows, RowsTooLarge, collect
from app.tools.tool import ToolError

_OPCODES_BETWEEN_LOOKS: Final = 5_000
"""Steps of SQLite's machine between two looks at the clock; about 0.2 ms."""
_LIMITS: Final = {
    sqlite3.SQLITE_LIMIT_LENGTH: 250_000,  # bytes of any text, blob or row; bounds one step's memory and time
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: 20_000,
    sqlite3.SQLITE_LIMIT_EXPR_DEPTH: 100,
    sqlite3.SQLITE_LIMIT_COMPOUND_SELECT: 20,
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
    sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 200,  # LIKE is one step, however long it takes
    sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH: 0,
    sqlite3.SQLITE_LIMIT_WORKER_THREADS: 0,
}
_FUNCTIONS: Final = frozenset(
    """
    abs acos asin atan atan2 avg ceil ceiling char coalesce concat concat_ws cos count cume_dist current_date
    current_time current_timestamp date datetime degrees dense_rank exp first_value floor glob group_concat hex
    ifnull iif instr json json_array json_array_length json_extract json_group_array json_group_object json_object
    json_type json_valid julianday lag last_value lead length like ln log log10 log2 lower ltrim max min mod nth_value
    ntile nullif percent_rank pi pow power quote radians rank replace round row_number rtrim sign sin sqrt
    strftime string_agg substr substring sum tan time timediff total trim trunc typeof unicode unixepoch upper -> ->>
    """.split()  # noqa: SIM905 - as prose, it can be read
)
"""What a query may call. Left out on purpose: load_extension, readfile, writefile, edit; randomblob and zeroblob
for their size; printf and format, which for a width of a billion run minutes in one step."""

_REFUSED: Final = "only one SELECT over the tables of the database is allowed, with ordinary functions"


class SqliteReader:
    """A database in a file, or a script that is loaded into memory for each query."""

    def __init__(self, source: Path, *, timeout_seconds: float, max_rows: int) -> None:
        """`source` ends in `.sql` for a script. Raises `ConfigurationError` when it is not there or not valid."""
        self._timeout_seconds, self._max_rows = timeout_seconds, max_rows
        self._source = source
        self._image: bytes | None = None
        try:
            if source.suffix == ".sql":
                with closing(sqlite3.connect(":memory:")) as made:
                    made.executescript(source.read_text(encoding="utf-8"))
                    self._image = made.serialize()
            self._schema = self._read_schema()
        except (OSError, sqlite3.Error) as error:
            raise ConfigurationError(
                f"the database {source.name} cannot be read ({type(error).__name__})",
                fix="set DATABASE_URL to sqlite:////absolute/path.db of an existing file, or leave it out",
            ) from error

    async def schema(self) -> str:
        """The statements that made its tables and views, with their comments."""
        return self._schema

    async def query(self, sql: str) -> Rows:
        """The rows of one SELECT. Raises `ToolError` with what to change."""
        stop = threading.Event()
        try:
            return await asyncio.to_thread(self._query, sql, stop)
        finally:
            stop.set()  # a cancelled call must not leave its query running

    def close(self) -> None:
        """Nothing is held between queries."""

    def _connect(self) -> sqlite3.Connection:
        if self._image is not None:
            connection = sqlite3.connect(":memory:", isolation_level=None)
            connection.deserialize(self._image)
        else:
            uri = f"{self._source.resolve().as_uri()}?mode=ro"
            connection = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=self._timeout_seconds)
        connection.execute("PRAGMA query_only = ON")
        connection.execute("PRAGMA trusted_schema = OFF")
        return connection

    def _query(self, sql: str, stop: threading.Event) -> Rows:
        end = time.monotonic() + self._timeout_seconds
        tables: set[str] = set()
        try:
            with closing(self._connect()) as connection:
                _fence(connection, tables)
                connection.set_progress_handler(lambda: stop.is_set() or time.monotonic() > end, _OPCODES_BETWEEN_LOOKS)
                cursor = connection.execute(sql)
                if cursor.description is None:
                    raise ToolError(_REFUSED)
                columns = [column[0] for column in cursor.description]
                return collect(columns, cursor, max_rows=self._max_rows, tables=tables)
        except (sqlite3.Error, sqlite3.Warning, RowsTooLarge) as error:
            raise self._failure(error) from error

    def _failure(self, error: Exception) -> ToolError:
        """What the query's writer can do about it. SQLite's own texts quote the query and nothing else."""
        match getattr(error, "sqlite_errorname", ""):
            case "SQLITE_AUTH":
                return ToolError(_REFUSED)
            case "SQLITE_INTERRUPT":
                return ToolError(f"the query took longer than {self._timeout_seconds:g} s", fix="ask for less at once")
            case "SQLITE_TOOBIG":
                return ToolError("a value in the query is over 250 kB", fix="select fewer or shorter columns")
            case "SQLITE_BUSY" | "SQLITE_LOCKED" | "SQLITE_CANTOPEN" | "SQLITE_IOERR" | "SQLITE_CORRUPT":
                return ToolError("the database cannot be read now", fix="go on without it")
        if isinstance(error, sqlite3.Warning) or "one statement at a time" in str(error):
            return ToolError(_REFUSED)
        return ToolError(str(error))

    def _read_schema(self) -> str:
        with closing(self._connect()) as connection:
            made = connection.execute(
                "SELECT sql FROM sqlite_schema WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite_%' "
                "ORDER BY name"
            )
            return "\n".join(f"{statement};" for (statement,) in made)


def _fence(connection: sqlite3.Connection, tables: set[str]) -> None:
    """From here on `connection` only reads; the names of the tables that are read gather in `tables`."""
    known = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type IN ('table', 'view')")}
    for limit, value in _LIMITS.items():
        connection.setlimit(limit, value)
    connection.set_authorizer(_authorizer(known, tables))


def _authorizer(known: set[str], tables: set[str]) -> Callable[..., int]:
    def allow(action: int, first: str | None, second: str | None, _database: str | None, _within: str | None) -> int:
        match action:
            case sqlite3.SQLITE_SELECT | sqlite3.SQLITE_RECURSIVE:
                return sqlite3.SQLITE_OK
            case sqlite3.SQLITE_READ if first in known:
                tables.add(str(first))
                return sqlite3.SQLITE_OK
            case sqlite3.SQLITE_READ if second == "":
                return sqlite3.SQLITE_OK  # rows are counted, no column is read: how a WITH table shows up
            case sqlite3.SQLITE_FUNCTION if str(second).lower() in _FUNCTIONS:
                return sqlite3.SQLITE_OK
        return sqlite3.SQLITE_DENY

    return allow


def sqlite_path(url: str) -> Path:
    """The file of `sqlite:///relative.db` or `sqlite:////absolute.db`. Raises `ConfigurationError` for other forms."""
    path = url.removeprefix("sqlite://")
    if not path.startswith("/") or path == "/" or "?" in path:
        raise ConfigurationError(
            "DATABASE_URL names no SQLite file", fix="write it as sqlite:////absolute/path.db or sqlite:///relative.db"
        )
    return Path(path[1:])
