"""Makes a request of the table ready to be sent: its address, headers and body."""

from collections.abc import Mapping

from progrock.backends import bodies
from progrock.backends.http.addresses import Servers
from progrock.backends.http.requests import Request, fits_header
from progrock.backends.http.spec import HttpSpec
from progrock.backends.templates import Scope, Text, Unfillable


class Outgoing:
    """A request that is about to be sent. `headers` may be changed; `body` is what goes out.

    `own` says whether it goes to the backend's own server. `token` is the access token that it
    goes out with, or empty.
    """

    __slots__ = ("body", "headers", "method", "name", "own", "token", "url")

    def __init__(
        self,
        name: str,
        method: str,
        url: str,
        headers: dict[str, str],
        body: bytes | None,
        *,
        own: bool,
    ) -> None:
        self.name, self.method, self.url = name, method, url
        self.headers, self.body, self.own = headers, body, own
        self.token = ""

    def add(self, headers: Mapping[str, str]) -> None:
        """Add these headers; they replace those of the same name."""
        self.headers = _merged(self.headers, headers)


class Maker:
    """Makes the requests of one table."""

    def __init__(self, spec: HttpSpec) -> None:
        self._spec = spec
        self._servers = Servers(spec.url.filled(Scope()), spec.origins)
        self._constant: dict[int, dict[str, str]] = {}  # headers that stay the same, by request

    def made(self, name: str, request: Request, scope: Scope) -> Outgoing:
        """The request called `name`, with its holes filled in. Raises Unfillable."""
        url, own = self._where().address(request.path, scope)
        body = None
        if request.form is not None:
            body = bodies.as_form(bodies.filled(request.form, scope))
        elif request.body is not None:
            body = bodies.as_json(bodies.filled(request.body, scope))
        elif request.sends_params and scope.job is not None:
            body = bodies.as_json(scope.job.params)
        headers = self._headers(request, scope, own)
        return Outgoing(name, request.method, url, headers, body, own=own)

    def _where(self) -> Servers:
        """The servers of the table. A file that `url` names may have changed since the last time.

        Raises Unfillable.
        """
        if self._spec.url.is_constant:
            return self._servers
        if (url := self._spec.url.filled(Scope())) != self._servers.url:
            try:
                self._servers = Servers(url, self._spec.origins)
            except ValueError:
                raise Unfillable("`url` is no address any more") from None
        return self._servers

    def _headers(self, request: Request, scope: Scope, own: bool) -> dict[str, str]:
        """The headers of a request. Those of `headers` of the table go to its own server only."""
        if own and (kept := self._constant.get(id(request))):
            return dict(kept)
        headers = {"Accept": "application/json"}
        if request.has_body:
            form = request.form is not None
            kind = "application/x-www-form-urlencoded" if form else "application/json"
            headers["Content-Type"] = kind
        if own:
            headers = _merged(headers, _filled(self._spec.headers, scope))
        if not request.has_body:
            headers = {name: v for name, v in headers.items() if name.lower() != "content-type"}
        headers = _merged(headers, _filled(request.headers, scope))
        texts = [*self._spec.headers.values(), *request.headers.values()]
        if own and all(text.is_constant for text in texts):
            self._constant[id(request)] = dict(headers)
        return headers


def _filled(headers: Mapping[str, Text], scope: Scope) -> dict[str, str]:
    """The headers with their holes filled in. Raises Unfillable."""
    filled = {}
    for name, written in headers.items():
        value = written.filled(scope)
        if not fits_header(value):
            raise Unfillable(f"the header {name} would hold a character that no header may hold")
        filled[name] = value
    return filled


def _merged(headers: Mapping[str, str], stronger: Mapping[str, str]) -> dict[str, str]:
    """The headers of both. For a name that both have, in any letters, `stronger` has the value."""
    names = {name.lower() for name in stronger}
    kept = {name: each for name, each in headers.items() if name.lower() not in names}
    return {**kept, **stronger}
