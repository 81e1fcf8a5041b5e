"""What the Python API raises on purpose, as `progrock.Refused`, and sentences of every door."""

DATABASE_AWAY = "The database is away; try again in a moment."
NO_ANSWER = (
    "The database did not answer in time, so this may yet be done."
    " The same request may be asked again: it starts one job."
)
WRONG_HOST = "This host is not in ALLOWED_HOSTS."
CANNOT_TELL_WHO = "The server cannot tell who you are; its log says why. Try again later."
CANNOT_TELL = (
    "The server cannot tell whether you may start this; its log says why. Try again later."
)


class Refused(Exception):
    """Raised when a request cannot be granted.

    `code` is for programs (docs/wire.md lists them), `message` is a sentence for people.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
