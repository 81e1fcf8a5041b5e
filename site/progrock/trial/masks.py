"""Hides secrets in what is printed: values of variables and files, credentials in headers."""

import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote, quote_plus, unquote

import orjson

from progrock.backends import Options
from progrock.backends.templates import File
from progrock.trial.variables import shown, variables

HIDDEN = "***"
#: A shorter value counts as no secret. It is hidden only in requests and only as a whole word,
#: because hiding it anywhere would garble the report.
_SHORT = 4
_DEEPEST = 50
_CUT = " … "  # where `shortened` has left out the middle of a text
_SECRET_HEADER = re.compile(
    r"auth|cookie|token|secret|passw|signature|credential|(?<!idempotency-)key$", re.I
)
_SECRET_FIELD = re.compile(
    r"(?P<name>[?&;](?:[\w.%-]*(?:token|secret|passw|signature|credential|api_?key)[\w.%-]*"
    r"|sig|key|code|auth)=)(?P<value>[^&\s\"'<>]+)",
    re.I,
)


class Mask:
    """Replaces each secret of a backend by its name in the table, such as `${TOKEN}`.

    A default that stands in the table is no secret. `keep` holds values that stay visible in an
    address under any name, such as the job's handle.
    """

    def __init__(self, options: Options, environ: Mapping[str, str]) -> None:
        self.keep: set[str] = set()
        self._files: list[File] = []
        self._shown: dict[str, str] = {}  # by the secret, in each of its spellings, in lower case
        self._long: Callable[[str], str] = str
        self._all: Callable[[str], str] = str
        for part in variables(options):
            if isinstance(part, File):
                self._files.append(part)
                self.read_files()
            elif value := environ.get(part.name):
                self.learn(value, shown(part))

    def learn(self, secret: str, name: str = HIDDEN) -> None:
        """Hide this text from now on, and show `name` in its place."""
        secret = secret.rstrip("/") or secret  # `url` may end with a slash, which is not sent
        quoted = quote(secret, safe="")
        spellings = (secret, quoted, quote(secret), quote_plus(secret), quote(quoted, safe=""))
        json = orjson.dumps(secret.encode("utf-8", "replace").decode()).decode()[1:-1]
        for each in (*spellings, json):
            self._shown.setdefault(each.lower(), name)
        self._long = self._replacer(_SHORT)
        self._all = self._replacer(1)

    def text(self, written: str) -> str:
        """A text that may be printed."""
        if _CUT in written:
            written = _CUT.join(self._without_pieces(each) for each in written.split(_CUT))
        return _SECRET_FIELD.sub(self._field, self._long(written))

    def value(self, value: Any, depth: int = 0) -> Any:
        """A copy of JSON values that may be printed. The copy may be cut, as no secret is in it."""
        if isinstance(value, str):
            return self.text(value)
        if depth > _DEEPEST:
            return "…"
        if isinstance(value, dict):
            return {self.text(name): self.value(each, depth + 1) for name, each in value.items()}
        if isinstance(value, list):
            return [self.value(each, depth + 1) for each in value]
        return value

    def request(self, written: str) -> str:
        """A part of a request that may be printed. Short values are hidden here as well."""
        return self.text(self._all(written))

    def header(self, name: str, value: str) -> str:
        """The value of a request's header. Credentials are hidden even if no variable has them.

        From then on such a credential is hidden everywhere.
        """
        masked = self.request(value)
        if masked != value or not _SECRET_HEADER.search(name):
            return masked
        scheme, _, credential = value.rpartition(" ")
        if not re.fullmatch(r"[A-Za-z][\w-]*", scheme):
            scheme, credential = "", value
        if len(credential) >= 2 * _SHORT:
            self.learn(credential)
        return f"{scheme} {HIDDEN}".strip()

    def read_files(self) -> None:
        """Learn what the files hold now. One that cannot be read was not sent either."""
        for file in self._files:
            try:
                secret = file.read()
            except (OSError, ValueError):
                continue
            if secret and (secret.rstrip("/") or secret).lower() not in self._shown:
                self.learn(secret, shown(file))

    def _without_pieces(self, part: str) -> str:
        """A part of a text that was cut, without the piece of a secret at either end of it."""
        lower = part.lower()
        for secret, name in self._shown.items():
            for length in range(len(secret) - 1, _SHORT - 1, -1):
                if lower.endswith(secret[:length]):
                    part = part[:-length] + name
                elif lower.startswith(secret[-length:]):
                    part = name + part[length:]
                else:
                    continue
                lower = part.lower()
                break
        return part

    def _replacer(self, shortest: int) -> Callable[[str], str]:
        """A function that replaces all secrets of at least so many characters, longest first."""
        secrets = sorted((each for each in self._shown if len(each) >= shortest), key=len)
        patterns = (
            re.escape(each) if len(each) >= _SHORT else rf"(?<!\w){re.escape(each)}(?!\w)"
            for each in reversed(secrets)
        )
        if not secrets:
            return str
        pattern = re.compile("|".join(patterns), re.I)
        return lambda text: pattern.sub(
            lambda found: self._shown.get(found[0].lower(), HIDDEN), text
        )

    def _field(self, found: "re.Match[str]") -> str:
        value = found["value"]
        known = all(each in self.keep for each in unquote(value).split(","))
        return found[0] if known or "${" in value else f"{found['name']}{HIDDEN}"
