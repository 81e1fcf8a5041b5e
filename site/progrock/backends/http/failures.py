"""Makes a BackendError, with a sentence for the browser, when a request got no whole answer."""

import aiohttp

from progrock.backends.errors import BackendError

#: Error, sentence, and whether the request may have reached the backend.
#: A class stands before the classes that it extends, because the first match counts.
SENTENCES: tuple[tuple[type[Exception], str, bool], ...] = (
    (aiohttp.ConnectionTimeoutError, "the backend accepts no connection", False),
    (aiohttp.ClientConnectorDNSError, "the backend's name was not found", False),
    (aiohttp.ClientSSLError, "no trusted TLS connection to the backend", False),
    (aiohttp.ServerFingerprintMismatch, "no trusted TLS connection to the backend", False),
    (aiohttp.ClientConnectorError, "the backend cannot be reached", False),
    (aiohttp.ClientPayloadError, "the backend closed the connection half-way", True),
    (aiohttp.ClientConnectionError, "the backend closed the connection", True),
    (aiohttp.ClientResponseError, "the backend answered with something that is not HTTP", True),
    (aiohttp.InvalidURL, "the backend's address is wrong", False),
    (aiohttp.ClientError, "the backend could not be asked", True),
)


def translate(error: aiohttp.ClientError) -> BackendError:
    """The BackendError for an error of aiohttp."""
    refused = isinstance(error, aiohttp.ClientConnectorError) and isinstance(
        error.os_error, ConnectionRefusedError
    )
    if refused:
        return BackendError("connection refused", sent=False)
    sentence, sent = next(
        (sentence, sent) for kind, sentence, sent in SENTENCES if isinstance(error, kind)
    )
    return BackendError(sentence, sent=sent)
