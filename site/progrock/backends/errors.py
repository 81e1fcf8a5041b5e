"""What can go wrong with a backend: a wrong configuration, or a call without success; told in sentences for people."""


class ConfigError(Exception):
    """Raised when the backends' file is wrong. Says where, what was found there, and what was wanted."""

    def __init__(self, where: str, *, found: str, wanted: str) -> None:
        super().__init__(f"{where}: found {found}; wanted {wanted}")
        self.where = where
        self.found = found
        self.wanted = wanted


class BackendError(Exception):
    """Raised when a backend could not be asked, did not answer, or answered with something that cannot be used.

    `sentence` is shown in the browser: no address, no secret. `retry_after` is the wait in seconds that was asked for.
    `final`: the backend's own definite no. `sent` is false only where the backend surely did not take the request.
    `forgotten`: it does not know the handle. `status` is HTTP's, where there was one.
    """

    def __init__(
        self,
        sentence: str,
        *,
        retry_after: float | None = None,
        final: bool = False,
        sent: bool = True,
        forgotten: bool = False,
        status: int | None = None,
    ) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.retry_after = retry_after
        self.final = final
        self.sent = sent
        self.forgotten = forgotten
        self.status = status
