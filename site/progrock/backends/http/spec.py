"""What to ask a backend over HTTP, and where to look in its answers: a table that was read."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from progrock.backends.base import JobState
from progrock.backends.errors import ConfigError
from progrock.backends.http.addresses import ADDRESS, SERVER, is_address, is_server
from progrock.backends.http.requests import Request, bound_headers
from progrock.backends.http.values import Value
from progrock.backends.templates import Hole, Scope, Text

#: A variable may have put a secret into a text.
_NOT_SHOWN = "a text that is no address, and may be a secret"


@dataclass(frozen=True, kw_only=True)
class States:
    """What the backend's words (in lower case) and HTTP statuses mean.

    `other` is what any other word means, and None where no other word may come.
    """

    words: Mapping[str, JobState] = field(default_factory=dict)
    statuses: Mapping[int, JobState] = field(default_factory=dict)
    other: JobState | None = None


@dataclass(frozen=True, kw_only=True)
class Auth:
    """Where to get an access token with client credentials (RFC 6749, 4.4)."""

    token_url: Text
    client_id: Text
    client_secret: Text
    scope: Text | None = None


@dataclass(frozen=True, kw_only=True)
class HttpSpec:
    """What to ask a backend over HTTP, and where to look in its answers.

    The variables of the texts are not filled in before a worker calls `bound`.
    """

    url: Text
    start: Request
    poll: Request | None
    poll_many: Request | None
    fetch: Request | None
    cancel: Request | None
    handle: Value
    state: Value | None
    states: States
    progress: Value | None
    progress_scale: float
    message: Value | None
    result: Value | None
    error: Value | None
    moves: Value | None
    headers: Mapping[str, Text]
    origins: tuple[str, ...]
    rate: float | None
    auth: Auth | None
    tls: Mapping[str, str]
    proxy: Text | None

    @property
    def needed_params(self) -> list[Hole]:
        """The holes of params without which a job could start, but not be asked about later."""
        holes = [hole for request in self._later for hole in request.needed]
        return [hole for hole in (*holes, *self.handle.holes) if hole.root == "params"]

    @property
    def reads_params(self) -> bool:
        """Whether a look at a running job, or its cancel, needs the job's params."""
        texts = [*self.headers.values(), *(each for it in self._later for each in it.texts)]
        values = [self.state, self.progress, self.message, self.result, self.error, self.moves]
        values += [value for each in self._later for value in (each.when, each.items, each.id)]
        found = [each for each in (*texts, *values) if each]
        return any(hole.root == "params" for each in found for hole in each.holes)

    def longest_look(self, timeout: float) -> float:
        """How many seconds the requests of one look may take in all; `timeout` is the backend's."""
        polls = [each.timeout or timeout for each in (self.poll, self.poll_many) if each]
        return max(polls) + (self.fetch.timeout or timeout if self.fetch else 0.0)

    @property
    def _later(self) -> list[Request]:
        """All requests but the start."""
        instead = self.cancel and self.cancel.instead
        later = (self.poll, self.poll_many, self.fetch, self.cancel, instead)
        return [request for request in later if request]

    def bound(self, where: str, environ: Mapping[str, str]) -> "HttpSpec":
        """The same with the variables filled in. Raises ConfigError, which never shows a value."""
        url = self.url.bound(f"{where} url", environ)
        if not is_address(url.filled(Scope())):
            raise ConfigError(f"{where} url", found=_NOT_SHOWN, wanted=ADDRESS)

        def each(name: str) -> Any:
            request = getattr(self, name)
            return request and request.bound(f"{where} {name}", environ)

        for name, written in self._servers:
            if not is_server(written.bound(f"{where} {name}", environ).filled(Scope())):
                raise ConfigError(f"{where} {name}", found=_NOT_SHOWN, wanted=SERVER)
        auth = self.auth and Auth(
            **{
                key: written and written.bound(f"{where} auth {key}", environ)
                for key, written in vars(self.auth).items()
            }
        )
        return replace(
            self,
            url=url,
            **{name: each(name) for name in ("start", "poll", "poll_many", "fetch", "cancel")},
            headers=bound_headers(f"{where} headers", self.headers, environ),
            auth=auth,
            proxy=self.proxy and self.proxy.bound(f"{where} proxy", environ),
        )

    @property
    def _servers(self) -> list[tuple[str, Text]]:
        """The other addresses of the table, by their keys."""
        token_url = self.auth and self.auth.token_url
        both = (("auth token_url", token_url), ("proxy", self.proxy))
        return [(name, written) for name, written in both if written]
