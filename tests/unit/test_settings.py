"""The settings of the stand-alone project, as the environment says them."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

SHOW = """
import json
from config import settings

print(json.dumps({name: getattr(settings, name) for name in dir(settings) if name.isupper()},
                 default=str))
"""
PRODUCTION = {
    "DEBUG": "0",
    "SECRET_KEY": "only-for-tests",
    "ALLOWED_HOSTS": "real.example .wide.example",
    "DATABASE_URL": "postgres://user:password@127.0.0.1:1/name",
}


def load(**env: str) -> subprocess.CompletedProcess[str]:
    """Read the settings in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", SHOW], env=os.environ | env, capture_output=True, text=True
    )


def settings(**env: str) -> dict[str, Any]:
    """The settings of production with these variables."""
    done = load(**PRODUCTION, **env)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_subdomains_and_preload_are_part_of_hsts_unless_told_otherwise() -> None:
    by_default, off = settings(), settings(PROGROCK_HSTS_SUBDOMAINS="0")
    for name in ("SECURE_HSTS_INCLUDE_SUBDOMAINS", "SECURE_HSTS_PRELOAD"):
        assert by_default[name] is True
        assert off[name] is False
    assert off["SECURE_HSTS_SECONDS"] == by_default["SECURE_HSTS_SECONDS"] > 0


def test_trusted_origins_have_a_variable() -> None:
    assert settings()["CSRF_TRUSTED_ORIGINS"] == [
        "https://real.example",
        "https://wide.example",
        "https://*.wide.example",
    ]
    told = settings(CSRF_TRUSTED_ORIGINS="https://a.example, http://b.example:8080")
    assert told["CSRF_TRUSTED_ORIGINS"] == ["https://a.example", "http://b.example:8080"]


def test_pgbouncer_gets_no_startup_parameter() -> None:
    database = settings()["DATABASES"]["default"]
    assert database["OPTIONS"]["options"] == "-c statement_timeout=30s"
    database = settings(PROGROCK_PGBOUNCER="1")["DATABASES"]["default"]
    assert "options" not in database["OPTIONS"]
    assert database["DISABLE_SERVER_SIDE_CURSORS"] is True


@pytest.mark.parametrize("value", ["999999", "inf", "nan", "-1", "1e400", "a month"])
def test_a_number_out_of_its_bounds_stops_the_start(value: str) -> None:
    done = load(PROGROCK_KEEP_DAYS=value)
    assert done.returncode == 1
    assert "PROGROCK_KEEP_DAYS is" in done.stderr
    assert "wanted a number from 0 to 36500" in done.stderr


def test_an_unknown_log_level_stops_the_start() -> None:
    done = load(PROGROCK_LOG_LEVEL="loud")
    assert done.returncode == 1
    assert "PROGROCK_LOG_LEVEL is 'LOUD': wanted DEBUG, INFO, WARNING or ERROR" in done.stderr


def test_requests_share_a_pool_that_has_bounds_and_may_be_left_out() -> None:
    assert settings()["DATABASES"]["default"]["OPTIONS"]["pool"]["max_size"] == 10
    assert "pool" not in settings(PROGROCK_POOL="0")["DATABASES"]["default"]["OPTIONS"]
    done = load(**PRODUCTION, PROGROCK_POOL="1001")
    assert done.returncode == 1
    assert "wanted a whole number from 0 to 1000" in done.stderr
