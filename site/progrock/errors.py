"""What the Python API raises on purpose, and the sentences that the socket and HTTP share."""

DATABASE_AWAY = "The database is away; try again in a moment."
NO_ANSWER = (
    "The database did not answer in time, so this may yet be done."
    " You can send it again with the same `request`, which does not start a second job."
)
WRONG_HOST = "This host is not in ALLOWED_HOSTS."
CANNOT_TELL_WHO = "The server cannot tell who you are; its log says why. Try again later."
CANNOT_TELL = (
    "The server cannot tell whether you may start this; its log says why. Try again later."
)


class Refused(Exception):
    """Raised when a start, a cancel or another request is refused; it is `progrock.Refused`.

    `code` is for programs (docs/wire.md lists the codes), `message` is a sentence for people.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
