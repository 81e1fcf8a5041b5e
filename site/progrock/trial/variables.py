"""Which variables and files a table names, such as `${TOKEN}` and `${file:/run/token}`."""

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass

from progrock.backends import Options
from progrock.backends.templates import File, Text, Variable


def variables(options: Options) -> list[Variable | File]:
    """The variables and files of a table that `load` has read, each once, in their order."""
    found: dict[str, Variable | File] = {}
    for text in _texts(options.spec):
        for part in text.parts:
            if isinstance(part, Variable | File):
                found.setdefault(shown(part), part)
    return list(found.values())


def shown(part: Variable | File) -> str:
    """How a variable or file stands in the table, without its default."""
    return f"${{file:{part.path}}}" if isinstance(part, File) else f"${{{part.name}}}"


def missing(options: Options, environ: Mapping[str, str]) -> list[str]:
    """What has to be there before the backend can be built, as it stands in the table."""
    return [shown(part) for part in variables(options) if _is_missing(part, environ)]


def _is_missing(part: Variable | File, environ: Mapping[str, str]) -> bool:
    if isinstance(part, Variable):
        return part.default is None and not environ.get(part.name)
    try:
        part.read()
    except (OSError, ValueError):
        return True
    return False


def _texts(value: object) -> Iterator[Text]:
    """All texts inside a value of a table, however deep."""
    if isinstance(value, Text):
        yield value
        return
    inner: list[object] = []
    if is_dataclass(value):
        inner = [getattr(value, field.name) for field in fields(value)]
    elif isinstance(value, Mapping):
        inner = list(value.values())
    elif isinstance(value, list | tuple):
        inner = list(value)
    for each in inner:
        yield from _texts(each)
