"""The connections to one backend: aiohttp's sessions and its TLS context."""

import ssl
from collections.abc import Mapping
from types import SimpleNamespace

import aiohttp

from progrock.backends.errors import ConfigError


class Sessions:
    """Two sessions, opened at their first use in the running loop.

    One keeps its connections. The other opens a connection for each request, because aiohttp sends
    a PUT or DELETE again where a kept connection turns out to be dead. `at_once` is how many
    connections each may have.
    """

    def __init__(self, at_once: int, tls: ssl.SSLContext | bool) -> None:
        self._at_once, self._tls = at_once, tls
        self._keeping: aiohttp.ClientSession | None = None
        self._once: aiohttp.ClientSession | None = None

    def keeping(self) -> aiohttp.ClientSession:
        """The session that keeps its connections."""
        if self._keeping is None:
            self._keeping = self._open(once=False)
        return self._keeping

    def once(self) -> aiohttp.ClientSession:
        """The session for requests that must not be sent twice."""
        if self._once is None:
            self._once = self._open(once=True)
        return self._once

    def _open(self, *, once: bool) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(limit=self._at_once, force_close=once, ssl=self._tls)
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(),  # none, because callers have their own
            trace_configs=[_one_connection()] if once else [],
            trust_env=False,
        )

    async def aclose(self) -> None:
        """Close all connections."""
        for session in (self._keeping, self._once):
            if session is not None:
                await session.close()
        self._keeping = self._once = None


def _one_connection() -> aiohttp.TraceConfig:
    """Ends a request that would open a second connection, because it was sent on the first."""

    async def opens(_: aiohttp.ClientSession, request: SimpleNamespace, __: object) -> None:
        if hasattr(request, "opened"):
            raise aiohttp.ServerDisconnectedError
        request.opened = True

    trace = aiohttp.TraceConfig()
    trace.on_connection_create_start.append(opens)
    return trace


def tls_context(name: str, files: Mapping[str, str]) -> ssl.SSLContext | bool:
    """The TLS context of the table `name`; True for the usual one. Raises ConfigError."""
    if not files:
        return True
    try:
        context = ssl.create_default_context(cafile=files.get("ca"))
        if "cert" in files:
            # With a password, even an empty one, OpenSSL does not ask for one at the terminal.
            context.load_cert_chain(files["cert"], files.get("key"), password="")
    except (OSError, ssl.SSLError) as error:
        found = f"{', '.join(files.values())}: {error}"
        raise ConfigError(f"[{name}] tls", found=found, wanted="certificates in PEM") from error
    return context
