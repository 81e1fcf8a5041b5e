"""What a lost connection leaves in the log."""

import asyncio
import gc

import pytest
from aio_pika.exceptions import AMQPConnectionError

import progrock.broker.connection


@pytest.mark.parametrize(
    ("error", "heard"), [(AMQPConnectionError("gone"), False), (ValueError("a mistake"), True)]
)
async def test_a_future_that_aiormq_forgot_is_no_news(
    error: Exception, heard: bool, caplog: pytest.LogCaptureFixture
) -> None:
    assert progrock.broker.connection
    gc.collect()  # what other tests have forgotten
    caplog.clear()
    future = asyncio.get_running_loop().create_future()
    future.set_exception(error)
    del future
    gc.collect()
    assert [record.name for record in caplog.records if "never retrieved" in record.message] == [
        "asyncio"
    ] * heard
