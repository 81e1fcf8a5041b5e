"""The two errors of backends: their file is wrong, or a call failed. Both speak to people."""


class ConfigError(Exception):
    """Raised when the backends' file is wrong: says where, what was found and what was wanted."""

    def __init__(self, where: str, *, found: str, wanted: str) -> None:
        super().__init__(f"{where}: found {found}; wanted {wanted}")
        self.where = where
        self.found = found
        self.wanted = wanted


class BackendError(Exception):
    """Raised when a call to a backend failed: no connection, no answer, or none that can be used.

    `sentence` is shown in the browser, so it holds no address and no secret.
    `retry_after` is the wait in seconds that the backend asked for.
    `final` means that another attempt would not help.
    `sent` is false only where the request surely did not reach the backend.
    `asked` is false where nothing was sent on purpose: the job stays as it is until `retry_after`.
    `forgotten` means that the backend does not know the handle.
    `status` is the HTTP status, where there was one.
    """

    def __init__(
        self,
        sentence: str,
        *,
        retry_after: float | None = None,
        final: bool = False,
        sent: bool = True,
        asked: bool = True,
        forgotten: bool = False,
        status: int | None = None,
    ) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.retry_after = retry_after
        self.final = final
        self.sent = sent and asked
        self.asked = asked
        self.forgotten = forgotten
        self.status = status


def shortened(text: str, longest: int) -> str:
    """The text. Of one that is longer than `longest`, only the beginning and the end."""
    if len(text) <= longest:
        return text
    half = (longest - 3) // 2
    return f"{text[:half]} … {text[-half:]}"
