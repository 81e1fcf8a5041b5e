"""Puts variables of the environment into texts of the backends' file."""

import re
from collections.abc import Mapping

from progrock.backends.errors import ConfigError


def expand(where: str, text: str, environ: Mapping[str, str]) -> str:
    """The text with `${NAME}` and `${NAME:-default}` filled in; an empty variable counts as unset.

    Raises ConfigError at `where` for a variable that is neither set nor has a default.
    """

    def value(match: re.Match[str]) -> str:
        name, default = match.groups()
        found = environ.get(name) or default
        if found is None:
            raise ConfigError(
                where,
                found=f"no {name} in the environment",
                wanted=f"{name}, or ${{{name}:-a default}}",
            )
        return found

    return re.sub(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}", value, text)
