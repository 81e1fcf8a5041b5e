"""Receives an answer from the network, and its body up to a limit."""

from time import time

import aiohttp

from progrock.backends.http.answers import Answer
from progrock.backends.http.manners import retry_after

#: aiohttp buffers a body of this many bytes without pausing its sender, however small the pieces.
_SMALL = 4_096


async def received(response: aiohttp.ClientResponse, limit: int) -> Answer:
    """The answer. A body of more than `limit` bytes is not read to its end."""
    content = response.content
    length = response.content_length or 0
    too_large = length > limit
    chunks: list[bytes] = []
    if 0 < length <= min(limit, _SMALL) and "content-encoding" not in response.headers:
        await content.wait_eof()  # one wait for the whole body costs less than one for each piece
    if content.is_eof():
        chunks.append(content.read_nowait())
        too_large = too_large or len(chunks[0]) > limit
    elif not too_large:
        left = limit
        async for chunk in content.iter_any():
            chunks.append(chunk)
            if too_large := (left := left - len(chunk)) < 0:
                break
    if too_large:
        response.close()
    headers = response.headers  # finds a name in any mix of capital and small letters
    body = None if too_large else b"".join(chunks)
    wait = retry_after(headers, time())
    return Answer(response.status, headers, body, limit=limit, wait=wait)
