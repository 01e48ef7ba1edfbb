"""The read-only fence around PostgreSQL, on a real server."""

from __future__ import annotations

import time
from collections.abc import Iterator

import psycopg
import pytest
from pydantic import SecretStr

from app.tools.postgres_reader import PostgresReader
from app.tools.tool import ToolError
from tests.support.postgres import Postgres, found

_BINARIES = found()

pytestmark = pytest.mark.skipif(_BINARIES is None, reason="no PostgreSQL server is installed (initdb was not found)")


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    """A server with a table, a function that writes, and two roles that own or may change the table."""
    assert _BINARIES is not None
    with Postgres(_BINARIES) as running:
        with psycopg.connect(running.url(), autocommit=True) as admin:
            admin.execute("CREATE TABLE customers (id int PRIMARY KEY, name text, since date, spent numeric(10, 2))")
            admin.execute("INSERT INTO customers VALUES (1, 'Ann', '2026-01-02', 10.50), (2, 'Bob', NULL, 0)")
            admin.execute("CREATE SEQUENCE numbers")
            admin.execute(
                "CREATE FUNCTION add_one() RETURNS int LANGUAGE sql AS "
                "$$ INSERT INTO customers VALUES (9, 'Eve', NULL, 0) RETURNING id $$"
            )
            admin.execute("CREATE ROLE writer LOGIN")
            admin.execute("GRANT ALL ON customers, numbers TO writer")
        yield running


@pytest.fixture
def reader(server: Postgres) -> PostgresReader:
    """As a role that might write, so that the transaction alone holds it back; one second, ten rows."""
    return PostgresReader(SecretStr(server.url("writer")), timeout_seconds=1, max_rows=10)


def state(server: Postgres) -> list[tuple[object, ...]]:
    """What an attack would change."""
    with psycopg.connect(server.url()) as admin:
        rows = admin.execute("SELECT * FROM customers ORDER BY id").fetchall()
        return [*rows, *admin.execute("SELECT last_value, is_called FROM numbers").fetchall()]


async def refused(reader: PostgresReader, sql: str) -> str:
    with pytest.raises(ToolError) as error:
        await reader.query(sql)
    return str(error.value)


async def test_a_select_gives_columns_and_json_values(reader: PostgresReader) -> None:
    """Dates and decimals come as what JSON has; order and names are the query's."""
    found_rows = await reader.query("SELECT name AS who, since, spent, id AS who FROM customers ORDER BY id;")
    assert found_rows.columns == ["who", "since", "spent", "who"]
    assert found_rows.rows == [["Ann", "2026-01-02", 10.5, 1], ["Bob", None, 0.0, 2]]


async def test_ordinary_questions_are_answered(reader: PostgresReader) -> None:
    """WITH, comments and a percent sign are not an attack."""
    for sql in (
        "WITH big AS (SELECT * FROM customers WHERE spent > 1) SELECT count(*) FROM big",
        "SELECT name FROM customers WHERE name LIKE 'A%' -- by letter",
        "/* all */ SELECT max(spent) FROM customers",
        "VALUES (1), (2)",
    ):
        assert (await reader.query(sql)).rows


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM customers",
        "INSERT INTO customers VALUES (9, 'Eve')",
        "SELECT 1; DELETE FROM customers",
        "SELECT 1) AS q; DELETE FROM customers; SELECT * FROM (SELECT 1",
        "SELECT 1) AS q UNION ALL SELECT repeat('x', 10000000) FROM (SELECT 1",
        "WITH gone AS (DELETE FROM customers RETURNING id) SELECT * FROM gone",
        "SELECT add_one()",
        "SELECT nextval('numbers')",
        "SELECT * FROM customers FOR UPDATE",
        "SELECT set_config('transaction_read_only', 'off', false), add_one()",
        "SELECT set_config('default_transaction_read_only', 'off', false), add_one()",
        "SET TRANSACTION READ WRITE",
        "COMMIT",
        "COPY customers TO PROGRAM 'touch /tmp/evil'",
        "COPY customers TO STDOUT",
        "DO $$ BEGIN DELETE FROM customers; END $$",
        "CALL something()",
        "SELECT * INTO evil FROM customers",
        "CREATE TABLE evil AS SELECT 1",
        "LOCK TABLE customers",
        "LISTEN events",
        "PREPARE evil AS SELECT 1",
        "ANALYZE SELECT 1",
        "SELECT pg_read_file('/etc/passwd')",
        "SELECT pg_ls_dir('/')",
        "SELECT lo_import('/etc/passwd')",
        "SELECT query_to_xml('DELETE FROM customers', true, true, '')",
        "",
    ],
)
async def test_everything_but_one_reading_select_is_refused(reader: PostgresReader, server: Postgres, sql: str) -> None:
    """Also where the role could: the fence must not hang on how well somebody set up a role."""
    before = state(server)
    assert await refused(reader, sql)
    assert state(server) == before


async def test_a_superuser_is_refused(server: Postgres) -> None:
    """A superuser reads files and runs programs from within a SELECT: no transaction holds that back."""
    reader = PostgresReader(SecretStr(server.url()), timeout_seconds=1, max_rows=10)
    assert "superuser" in await refused(reader, "SELECT 1")


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT pg_sleep(30)",
        "SELECT set_config('statement_timeout', '0', false), pg_sleep(30)",
        "SELECT count(*) FROM generate_series(1, 100000) a, generate_series(1, 100000) b",
    ],
)
async def test_a_query_without_end_is_stopped_on_the_server_too(
    reader: PostgresReader, server: Postgres, sql: str
) -> None:
    """Giving up alone would leave the database busy."""
    begun = time.monotonic()
    assert "longer than 1 s" in await refused(reader, sql)
    assert time.monotonic() - begun < 5
    with psycopg.connect(server.url()) as admin:
        running = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'writer' AND state = 'active'"
        assert admin.execute(running).fetchone() == (0,)


async def test_long_results_are_cut_on_the_server(reader: PostgresReader) -> None:
    """Ten rows of ten million, and no value of 10 MB in the worker's memory."""
    found_rows = await reader.query("SELECT generate_series(1, 10000000)")
    assert (len(found_rows.rows), found_rows.truncated) == (10, True)
    assert "too large" in await refused(reader, "SELECT repeat('x', 10000000)")


async def test_a_wrong_query_is_answered_with_what_is_wrong_and_no_secret(reader: PostgresReader) -> None:
    """The planner writes it again; host, role and password stay out of its sight."""
    assert 'column "surname" does not exist' in await refused(reader, "SELECT surname FROM customers")
    closed = PostgresReader(SecretStr("postgresql://me:s3cret@127.0.0.1:1/shop"), timeout_seconds=1, max_rows=1)
    text = await refused(closed, "SELECT 1")
    assert "does not answer" in text
    assert "s3cret" not in text
    assert "127.0.0.1" not in text


async def test_the_schema_lists_what_the_role_may_see(reader: PostgresReader) -> None:
    """What the planner writes its SQL from."""
    assert "customers(id integer, name text, since date, spent numeric)" in await reader.schema()
