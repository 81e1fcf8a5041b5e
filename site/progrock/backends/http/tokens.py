"""Access tokens by OAuth 2.0 client credentials (RFC 6749, 4.4)."""

import asyncio
import re
from collections.abc import Callable

import aiohttp

from progrock.backends.errors import BackendError
from progrock.backends.http.spec import Auth
from progrock.backends.http.values import number
from progrock.backends.templates import Scope

#: A token is replaced this many seconds before it expires.
_EARLY = 60.0
#: How many seconds a token lasts where the answer does not say so.
_DEFAULT = 3600.0


class Tokens:
    """Gets a token, keeps it until a minute before it expires. `clock` gives seconds."""

    def __init__(self, auth: Auth, clock: Callable[[], float]) -> None:
        self._auth, self._clock = auth, clock
        self._token = ""
        self._until = 0.0
        self._one = asyncio.Lock()

    async def current(self, session: aiohttp.ClientSession, proxy: str | None = None) -> str:
        """The token. Raises BackendError with `sent` false where none is given."""
        async with self._one:
            if not self._token or self._clock() >= self._until:
                await self._get(session, proxy)
            return self._token

    def forget(self, refused: str) -> None:
        """Get another token next time, unless the refused one was replaced in the meantime."""
        if self._token == refused:
            self._token = ""

    async def _get(self, session: aiohttp.ClientSession, proxy: str | None) -> None:
        nothing = Scope()
        fields = {
            "grant_type": "client_credentials",
            "client_id": self._auth.client_id.filled(nothing),
            "client_secret": self._auth.client_secret.filled(nothing),
        }
        if self._auth.scope:
            fields["scope"] = self._auth.scope.filled(nothing)
        try:
            async with session.post(
                self._auth.token_url.filled(nothing),
                data=fields,
                headers={"accept": "application/json"},
                allow_redirects=False,
                proxy=proxy,
            ) as answer:
                given = await answer.json(content_type=None) if answer.status == 200 else {}
        except (aiohttp.ClientError, ValueError, RecursionError) as error:
            raise BackendError(
                "the server of the access token could not be asked", sent=False
            ) from error
        token = given.get("access_token") if isinstance(given, dict) else None
        if not isinstance(token, str) or not re.fullmatch(r"[!-~]+", token):
            raise BackendError(
                f"the server of the access token answered {answer.status} without a usable one",
                sent=False,
            )
        life = given.get("expires_in")
        seconds = number(life)
        self._token = token
        self._until = self._clock() + max(0.0, (_DEFAULT if seconds is None else seconds) - _EARLY)
