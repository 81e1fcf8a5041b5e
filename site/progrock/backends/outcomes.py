"""What a call of a backend comes to, whatever a custom class does: an answer or a BackendError."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from progrock.backends.base import Options
from progrock.backends.errors import BackendError

V = TypeVar("V")


async def outcome_of(
    call: Callable[[V], Awaitable[Any]],
    about: V,
    options: Options,
    failed: Callable[[Exception], object],
) -> Any:
    """What `call(about)` returns, or the BackendError that says why it returned nothing.

    A backend over HTTP keeps its timeout by itself; the longer one here is for the others. `failed`
    is called with any other exception than BackendError.
    """
    try:
        async with asyncio.timeout(2 * options.longest_call + 1.0):
            return await call(about)
    except BackendError as error:
        return error
    except TimeoutError:
        return late(options.timeout)
    except Exception as error:  # a custom class may raise whatever it likes
        failed(error)
        return failure(error)


def by_job(answers: object) -> tuple[Mapping[str, Any], BackendError]:
    """The outcome of a poll by the ids of its jobs, and what counts for a job that has none."""
    if isinstance(answers, BackendError):
        return {}, answers
    if not isinstance(answers, Mapping):
        kind = type(answers).__name__
        return {}, BackendError(f"the backend's class answered with {kind}, wanted a mapping")
    return answers, BackendError("the backend said nothing of this job")


def late(seconds: float, *, sent: bool = True) -> BackendError:
    """The error where an answer did not come within `seconds`."""
    return BackendError(f"the backend did not answer within {seconds:g} s", sent=sent)


def failure(error: Exception) -> BackendError:
    """The error where a custom class has raised this, or where its answer makes no sense."""
    return BackendError(f"the backend's class failed: {type(error).__name__}")
