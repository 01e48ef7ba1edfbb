"""Reading a PostgreSQL database, and nothing but reading.

Each query runs in its own connection, in a READ ONLY transaction that is rolled back, under `statement_timeout`. It is
sent by the extended protocol, which takes one statement, and runs as a subquery, which must be a SELECT. What a
read-only transaction still lets a role do (functions with side effects elsewhere, reading other tables, ending other
sessions of the same role) only the role can forbid: give DATABASE_URL a role of its own that has SELECT on these tables
and nothing else. A superuser is refused.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any, Final

from pydantic import SecretStr

from app.infra.errors import ConfigurationError
from app.infra.logging import get_logger
from app.tools.rows import MAX_BYTES, Rows, RowsTooLarge, collect
from app.tools.tool import ToolError

if TYPE_CHECKING:
    import psycopg

_log = get_logger(__name__)

_CONNECT_SECONDS: Final = 5
_GRACE_SECONDS: Final = 1.0
"""How much longer than the server's own limit the client waits."""
_SCHEMA_SECONDS: Final = 300.0
"""How long the list of tables is believed."""
_REFUSED: Final = "only one SELECT is allowed, and it may change nothing"

_SCHEMA_QUERY: Final = """
SELECT table_schema, table_name, column_name, data_type FROM information_schema.columns
WHERE table_schema NOT IN ('pg_catalog', 'information_schema')
ORDER BY table_schema, table_name, ordinal_position LIMIT 2000
"""


class PostgresReader:
    """A PostgreSQL database behind a URL. Connects for each query; holds nothing between."""

    def __init__(self, url: SecretStr, *, timeout_seconds: float, max_rows: int) -> None:
        """Raises `ConfigurationError` when the URL cannot be read as one."""
        import psycopg

        self._url, self._timeout_seconds, self._max_rows = url, timeout_seconds, max_rows
        self._schema: tuple[float, str] | None = None
        try:
            psycopg.conninfo.conninfo_to_dict(url.get_secret_value())
        except psycopg.ProgrammingError:
            raise ConfigurationError(
                "DATABASE_URL is not a PostgreSQL URL", fix="write it as postgresql://reader:password@host:5432/name"
            ) from None  # its text quotes the URL

    async def schema(self) -> str:
        """One line per table that the role sees: `orders(id integer, …)`. Raises `ToolError`."""
        if self._schema is None or time.monotonic() > self._schema[0]:
            tables: dict[str, list[str]] = {}
            async with asyncio.timeout(self._timeout_seconds + _CONNECT_SECONDS):
                for space, table, column, kind in await self._run(_SCHEMA_QUERY):
                    tables.setdefault(table if space == "public" else f"{space}.{table}", []).append(f"{column} {kind}")
            lines = [f"{table}({', '.join(columns)})" for table, columns in tables.items()]
            self._schema = (time.monotonic() + _SCHEMA_SECONDS, "\n".join(lines))
        return self._schema[1]

    async def query(self, sql: str) -> Rows:
        """The rows of one SELECT. Raises `ToolError` with what to change."""
        statement = sql.strip().rstrip(";")
        # Alone first: only what is a whole statement by itself is then put in brackets, so brackets of its own
        # cannot close ours. Then as JSON, cut by the server: the client never holds more than the limit.
        whole = f"EXPLAIN {statement}"
        bounded = (
            f"SELECT left(row_to_json(q)::text, {MAX_BYTES + 1}) "  # noqa: S608 - see above
            f"FROM (\n{statement}\n) AS q LIMIT {self._max_rows + 1}"
        )
        try:
            async with asyncio.timeout(self._timeout_seconds + _CONNECT_SECONDS + _GRACE_SECONDS):
                found = await self._run(whole, bounded)
            pairs = [_pairs(row[0]) for row in found]
            columns = [name for name, _ in pairs[0]] if pairs else []
            return collect(columns, ([value for _, value in row] for row in pairs), max_rows=self._max_rows)
        except TimeoutError as error:
            raise self._too_long() from error
        except RowsTooLarge as error:
            raise ToolError(str(error)) from error

    def close(self) -> None:
        """Nothing is held between queries."""

    async def _run(self, *statements: str) -> list[tuple[Any, ...]]:
        """The rows of the last statement; all run in one transaction that is rolled back."""
        import psycopg

        try:
            connection = await psycopg.AsyncConnection.connect(
                self._url.get_secret_value(),
                connect_timeout=_CONNECT_SECONDS,
                application_name="slipway-read-only",
                options=f"-c statement_timeout={int(self._timeout_seconds * 1_000)} -c lock_timeout=1000",
            )
            try:
                return await self._read(connection, statements)
            finally:
                await connection.close()  # rolls back, and ends a query that was given up
        except psycopg.Error as error:
            raise self._failure(error) from error

    async def _read(
        self, connection: psycopg.AsyncConnection[tuple[Any, ...]], statements: tuple[str, ...]
    ) -> list[tuple[Any, ...]]:
        await connection.set_read_only(True)
        if connection.info.parameter_status("is_superuser") == "on":
            _log.error("database.superuser")
            raise ToolError("the database is set up with a superuser and is not used", fix="go on without it")
        rows: list[tuple[Any, ...]] = []
        for statement in statements:
            # Prepared, so that the extended protocol is used. The text is a model's: the transaction is its bound.
            cursor = await connection.execute(statement.encode(), prepare=True)
            rows = await cursor.fetchall()
        return rows

    def _too_long(self) -> ToolError:
        return ToolError(f"the query took longer than {self._timeout_seconds:g} s", fix="ask for less at once")

    def _failure(self, error: psycopg.Error) -> ToolError:
        """What the query's writer can do about it. Only texts about the query itself are passed on."""
        state, message = error.sqlstate or "", error.diag.message_primary or ""
        if state == "57014":  # query_canceled
            return self._too_long()
        if state == "25006" or "multiple commands" in message:  # read_only_sql_transaction
            return ToolError(_REFUSED)
        if state[:2] in ("42", "22", "0A", "21"):  # wrong syntax or names, wrong data, not supported, cardinality
            return ToolError(message)
        _log.warning("database.unavailable", error=type(error).__name__, sqlstate=state)
        return ToolError("the database does not answer", fix="go on without it")


def _pairs(text: str) -> list[tuple[str, Any]]:
    """A row's (column, value) in order; a column's name may come twice."""
    if len(text) > MAX_BYTES:
        raise RowsTooLarge
    pairs: list[tuple[str, Any]] = json.loads(text, object_pairs_hook=list)
    return pairs
