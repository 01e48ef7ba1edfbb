"""The tool that queries a database, read-only: SQLite by default, PostgreSQL with DATABASE_URL."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from pydantic import BaseModel, ConfigDict, Field

from app.infra.errors import ConfigurationError
from app.infra.settings import ToolSettings
from app.tools.postgres_reader import PostgresReader
from app.tools.rows import Rows, as_text
from app.tools.sqlite_reader import SqliteReader, sqlite_path
from app.tools.tool import Risk, Source, Tool, ToolCall, ToolResult

SAMPLE = Path(__file__).with_name("sample.sql")
"""The bundled database: a small shop."""
_MARGIN_SECONDS = 10.0
"""What the call may take beyond the query: to connect, and to stop a query that takes too long."""


class Reader(Protocol):
    """A database that can only be read."""

    async def schema(self) -> str:
        """Its tables and columns, as SQL or a line per table. Raises `ToolError`."""
        ...

    async def query(self, sql: str) -> Rows:
        """The rows of one SELECT. Raises `ToolError` with what to change."""
        ...

    def close(self) -> None: ...


class QueryArguments(BaseModel):
    model_config = ConfigDict(extra="forbid")

    sql: str = Field(min_length=1, max_length=10_000, description="One SELECT statement.")


def open_reader(settings: ToolSettings) -> Reader:
    """The configured database. Raises `ConfigurationError` for a URL of another kind, or a file that is not there."""
    timeout_seconds, max_rows = settings.database_timeout_seconds, settings.database_max_rows
    if settings.database_url is None:
        return SqliteReader(SAMPLE, timeout_seconds=timeout_seconds, max_rows=max_rows)
    url = settings.database_url.get_secret_value()
    if url.startswith("sqlite://"):
        return SqliteReader(sqlite_path(url), timeout_seconds=timeout_seconds, max_rows=max_rows)
    if url.startswith(("postgresql://", "postgres://")):
        return PostgresReader(settings.database_url, timeout_seconds=timeout_seconds, max_rows=max_rows)
    raise ConfigurationError(
        "DATABASE_URL is of a kind that is not supported", fix="begin it with sqlite:// or postgresql://"
    )


def database_tool(reader: Reader, *, timeout_seconds: float) -> Tool[QueryArguments]:
    """`query_database` over `reader`. `data`: `columns`, `rows` (lists in the columns' order), `truncated`."""

    async def query(arguments: QueryArguments, _call: ToolCall) -> ToolResult:
        rows = await reader.query(arguments.sql)
        return ToolResult(
            ok=True,
            text=as_text(rows),
            data={"columns": list(rows.columns), "rows": list(rows.rows), "truncated": rows.truncated},
            sources=[Source(title=f"Table {table}", uri=f"database:{table}") for table in rows.tables]
            or [Source(title="Database", uri="database:")],
        )

    async def details() -> str:
        return f"Tables of query_database:\n{await reader.schema()}"

    return Tool(
        name="query_database",
        description="Runs one read-only SQL SELECT over the database and returns its rows.",
        arguments=QueryArguments,
        call=query,
        risk=Risk.LOW,
        idempotent=True,
        timeout_seconds=timeout_seconds + _MARGIN_SECONDS,
        details=details,
    )
