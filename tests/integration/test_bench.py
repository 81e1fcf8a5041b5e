"""What the bench reads from a real PostgreSQL."""

import time
from pathlib import Path

import psycopg

from tests.bench.writes import written
from tests.services import PATIENCE, Postgres


def test_postgresql_counts_the_rows_and_the_log(postgres_url: Postgres, tmp_path: Path) -> None:
    url = postgres_url.new_database()
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE t (n integer PRIMARY KEY, v integer)")
        connection.execute("INSERT INTO t SELECT n, 0 FROM generate_series(1, 100) n")
        connection.execute("UPDATE t SET v = 1 WHERE n <= 20")
        connection.execute("UPDATE t SET n = n + 1000 WHERE n > 90")
    until = time.monotonic() + PATIENCE
    while (found := written(url, tmp_path))["rows"] < 130:
        assert time.monotonic() < until, found
        time.sleep(0.05)
    assert found["rows"] == 130
    assert 0 < found["hot"] <= 20
    assert written(url, tmp_path)["log"] >= found["log"] > 0
