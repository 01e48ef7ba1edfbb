"""The read-only fence around SQLite: attacked with what SQLite itself would do."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from app.infra.errors import ConfigurationError
from app.tools.rows import Rows
from app.tools.sqlite_reader import SqliteReader, sqlite_path
from app.tools.tool import ToolError

_SCRIPT = """
CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT); -- people
CREATE TABLE orders (id INTEGER PRIMARY KEY, customer_id INTEGER REFERENCES customers(id), total REAL, paid_on DATE);
CREATE VIEW big_orders AS SELECT * FROM orders WHERE total > 50;
INSERT INTO customers VALUES (1, 'Ann'), (2, 'Bob');
INSERT INTO orders VALUES (1, 1, 10.5, '2026-01-02'), (2, 1, 99.0, '2026-02-03'), (3, 2, 51.0, '2026-03-04');
"""


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A small shop in a file."""
    path = tmp_path / "shop.db"
    with closing(sqlite3.connect(path)) as made:
        made.executescript("PRAGMA synchronous = OFF;" + _SCRIPT)
    return path


@pytest.fixture
def reader(database: Path) -> SqliteReader:
    """Over that file; half a second and ten rows."""
    return SqliteReader(database, timeout_seconds=0.5, max_rows=10)


def state_of(database: Path) -> tuple[bytes, list[Path], bool]:
    """What an attack would change: the file, its neighbours, a file elsewhere."""
    return database.read_bytes(), list(database.parent.iterdir()), Path("/tmp/evil.db").exists()


async def refused(reader: SqliteReader, sql: str) -> str:
    """The text with which `sql` is refused."""
    with pytest.raises(ToolError) as error:
        await reader.query(sql)
    return str(error.value)


async def test_a_select_gives_columns_rows_and_the_tables_it_read(reader: SqliteReader) -> None:
    """What an answer needs: the figures, and where they come from."""
    found = await reader.query(
        "SELECT c.name, sum(o.total) AS spent FROM customers c JOIN orders o ON o.customer_id = c.id "
        "GROUP BY 1 ORDER BY 2"
    )
    assert found == Rows(["name", "spent"], [["Bob", 51.0], ["Ann", 109.5]], False, ["customers", "orders"])


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT count(*) FROM big_orders",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5) SELECT max(i) FROM n",
        "SELECT strftime('%Y-%m', paid_on) AS month, avg(total) FROM orders GROUP BY month",
        "SELECT name, row_number() OVER (ORDER BY name) FROM customers",
        "SELECT name FROM customers WHERE name LIKE 'a%' UNION SELECT 'x'",
        "VALUES (1), (2)",
        "SELECT 1 -- a comment; DROP TABLE orders",
        "SELECT 1;",
    ],
)
async def test_ordinary_questions_are_answered(reader: SqliteReader, sql: str) -> None:
    """A fence that stops analysts is taken down by them."""
    assert (await reader.query(sql)).rows


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM orders",
        "INSERT INTO customers VALUES (9, 'Eve')",
        "UPDATE customers SET name = 'Eve'",
        "DROP TABLE orders",
        "CREATE TABLE evil (a)",
        "CREATE TEMP TABLE evil AS SELECT 1",
        "REPLACE INTO customers VALUES (1, 'Eve')",
        "SELECT 1; DELETE FROM orders",
        "SELECT 1; SELECT 2",
        "/* harmless */ DELETE FROM orders",
        "WITH gone AS (SELECT 1) DELETE FROM orders",
        "INSERT INTO customers SELECT 9, 'Eve' RETURNING id",
        "PRAGMA query_only = OFF",
        "PRAGMA writable_schema = ON",
        "PRAGMA table_info(customers)",
        "SELECT * FROM pragma_database_list",
        "SELECT * FROM pragma_function_list",
        "ATTACH DATABASE '/tmp/evil.db' AS evil",
        "DETACH DATABASE main",
        "VACUUM INTO '/tmp/evil.db'",
        "BEGIN EXCLUSIVE",
        "SAVEPOINT a",
        "ANALYZE",
        "REINDEX",
        "SELECT load_extension('/tmp/evil.so')",
        "SELECT readfile('/etc/passwd')",
        "SELECT writefile('/tmp/evil', 'x')",
        "SELECT edit('x')",
        "SELECT printf('%.2000000000c', 'x')",
        "SELECT fts3_tokenizer('simple')",
        "SELECT hex(zeroblob(900000000))",
        "SELECT randomblob(900000000)",
        "SELECT * FROM sqlite_master",
        "SELECT * FROM sqlite_dbpage",
        "SELECT * FROM json_each('[1]')",
        "CREATE VIRTUAL TABLE evil USING fts5(a)",
        "",
        "-- nothing",
    ],
)
async def test_everything_but_one_select_is_refused_and_changes_nothing(
    reader: SqliteReader, database: Path, sql: str
) -> None:
    """A model writes the SQL, and whoever writes its input can make it write this."""
    before = state_of(database)
    assert await refused(reader, sql)
    assert state_of(database) == before


@pytest.mark.parametrize(
    "sql",
    [
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n WHERE i < 0",
        "SELECT count(*) FROM " + ", ".join(f"orders {name}" for name in "abcdefghijklmnop"),
    ],
)
async def test_a_query_without_end_is_stopped(reader: SqliteReader, sql: str) -> None:
    """One bad join must not take a worker's thread for the night."""
    begun = time.monotonic()
    assert "longer than 0.5 s" in await refused(reader, sql)
    assert time.monotonic() - begun < 3


_LONG = "replace(replace(replace(replace(replace('aaaaaaaaaa', 'a', 'aaaaaaaaaa'), 'a', 'aaaaaaaaaa'), 'a', \
'aaaaaaaaaa'), 'a', 'aaaaaaaaaa'), 'a', 'aaaaaaaaaa')"


@pytest.mark.parametrize(
    "sql",
    [
        f"SELECT {_LONG}",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 99999) SELECT group_concat(i) FROM n",
        "WITH RECURSIVE n(s) AS (SELECT 'aaaaaaaaaa' UNION ALL SELECT s || s FROM n) SELECT max(length(s)) FROM n",
    ],
)
async def test_a_value_cannot_grow_without_bound(reader: SqliteReader, sql: str) -> None:
    """A worker holds many runs; none may take its memory."""
    assert "over 250 kB" in await refused(reader, sql)


async def test_a_long_result_is_cut_and_says_so(reader: SqliteReader, database: Path) -> None:
    """Rows are for a prompt: ten thousand of them would be paid for and not read."""
    many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"
    found = await reader.query(many)
    assert (len(found.rows), found.truncated) == (10, True)
    wide = await SqliteReader(database, timeout_seconds=5, max_rows=10_000).query(
        f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT '{'x' * 3_000}' FROM n"
    )
    assert wide.truncated
    assert sum(len(str(row[0])) for row in wide.rows) <= 64_000


async def test_a_wrong_query_is_answered_with_what_is_wrong(reader: SqliteReader) -> None:
    """The planner writes it again when it knows the column that is missing."""
    assert "no such column: surname" in await refused(reader, "SELECT surname FROM customers")
    assert "no such table: people" in await refused(reader, "SELECT * FROM people")
    assert "syntax error" in await refused(reader, "SELEC 1")


async def test_blobs_and_nulls_become_json(tmp_path: Path) -> None:
    """Results are journalled as JSON."""
    script = tmp_path / "odd.sql"
    script.write_text("CREATE TABLE t (a BLOB, b TEXT); INSERT INTO t VALUES (x'0102', NULL);")
    found = await SqliteReader(script, timeout_seconds=1, max_rows=5).query("SELECT a, b FROM t")
    assert found.rows == [["<2 bytes>", None]]


async def test_the_schema_keeps_the_comments_of_its_author(tmp_path: Path) -> None:
    """Comments inside a table are the cheapest way to tell a planner what a column means."""
    script = tmp_path / "shop.sql"
    script.write_text("CREATE TABLE orders (id INTEGER, total REAL -- euros\n);")
    assert "total REAL -- euros" in await SqliteReader(script, timeout_seconds=1, max_rows=5).schema()


def test_a_database_that_is_not_there_stops_the_start(tmp_path: Path) -> None:
    """Opening for reading must not make an empty file of that name."""
    with pytest.raises(ConfigurationError, match="DATABASE_URL"):
        SqliteReader(tmp_path / "no.db", timeout_seconds=1, max_rows=1)
    assert list(tmp_path.iterdir()) == []


def test_urls_name_files_as_sqlalchemy_does() -> None:
    """Three slashes are relative, four absolute: what everybody's DATABASE_URL means."""
    assert sqlite_path("sqlite:////data/shop.db") == Path("/data/shop.db")
    assert sqlite_path("sqlite:///shop.db") == Path("shop.db")
    for url in ("sqlite://", "sqlite:///", "sqlite://shop.db", "sqlite:////a.db?mode=rwc"):
        with pytest.raises(ConfigurationError):
            sqlite_path(url)
