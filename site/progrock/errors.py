"""What the Python API raises on purpose; it is exported as `progrock.Refused`."""


class Refused(Exception):
    """Raised when a request cannot be granted.

    `code` is for programs (docs/wire.md lists them), `message` is a sentence for people.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
