"""What ProgRock says of each way in which the demo backend can misbehave.

The modes are those of `deploy/demo_backend/hooks.py`. `max_answer` is 100,000 bytes everywhere.
"""

RETRYING = "asking again: "
SENTENCES = {
    "400": "the backend answered 400: told to answer 400",
    "403": "the backend answered 403: told to answer 403",
    "404": "the backend answered 404: told to answer 404",
    "409": "the backend answered 409: told to answer 409",
    "429": "the backend answered 429: told to answer 429",
    "500": "the backend answered 500: told to answer 500",
    "503": "the backend answered 503: told to answer 503",
    "close": "the backend closed the connection half-way",
    "dots": "the backend answered without a usable handle for the job",
    "empty": "the backend answered with something that is not JSON",
    "garbage": "the backend answered with something that is not HTTP",
    "handleless": "the backend answered without a usable handle for the job",
    "hang": "the backend did not answer within {timeout:g} s",
    "html": "the backend answered with something that is not JSON",
    "huge": "the backend's answer is larger than 100,000 bytes",
    "list": "the backend answered without a state",
    "proxy": "the backend answered 404 with an HTML page, which is a proxy's",
    "redirect": "the backend answered 302, and redirects are not followed",
    "reset": "the backend closed the connection",
    "state": "the backend answered with an unknown state: paused",
    "stateless": "the backend answered without a state",
}


#: The modes that a poll can meet; the others spoil the answer to a start only.
POLLS = [mode for mode in SENTENCES if mode not in ("dots", "handleless")]


def sentence(mode: str, *, timeout: float = 1.0) -> str:
    """The sentence of a mode, for a backend with this timeout (seconds)."""
    return SENTENCES[mode].format(timeout=timeout)


def retrying(mode: str) -> str:
    """What the browser reads while the job is tried again; the backend's timeout is 1 s."""
    return f"{RETRYING}{sentence(mode)}"
