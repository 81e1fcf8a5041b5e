"""A backend that is a class of your own: finds the class, and checks what its table gives to it."""

import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from progrock.backends.errors import ConfigError
from progrock.backends.http.spec import HttpSpec


@dataclass(frozen=True, kw_only=True)
class ClassSpec:
    """A backend's class by its dotted path, and the arguments that its table has for it.

    `http` is the rest of the table, where the class extends HttpBackend.
    """

    path: str
    arguments: Mapping[str, Any]
    http: HttpSpec | None = None


def imported(where: str, path: str) -> Callable[..., Any]:
    """The class at a dotted path. Raises ConfigError."""
    module, _, name = path.rpartition(".")
    try:
        cls: Callable[..., Any] = getattr(import_module(module), name)
    # A module of the project's may raise anything, and one that is a script may end the process.
    except (Exception, SystemExit) as error:
        why = f"{type(error).__name__}: {error}"
        raise ConfigError(
            where, found=repr(path), wanted=f"the dotted path of a class ({why})"
        ) from error
    return cls


def extends_http_backend(cls: object) -> bool:
    """Whether a class extends HttpBackend. While HttpBackend is not loaded, no class does."""
    client = sys.modules.get("progrock.backends.http.client")
    return client is not None and isinstance(cls, type) and issubclass(cls, client.HttpBackend)


def check_arguments(
    where: str, cls: Callable[..., Any], path: str, options: object, arguments: Mapping[str, Any]
) -> None:
    """Check that the class can be called with these arguments. Raises ConfigError."""
    try:
        inspect.signature(cls).bind(options, **arguments)
    except (TypeError, ValueError) as error:  # ValueError: some classes do not tell what they take
        found = f"the keys {', '.join(arguments) or '(none)'}"
        raise ConfigError(
            where, found=found, wanted=f"the keys that {path} takes ({error})"
        ) from error
