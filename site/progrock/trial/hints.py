"""Says why a key of a table found nothing in an answer, and where it might have found something."""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from progrock.backends.errors import shortened
from progrock.backends.http.answers import Answer
from progrock.backends.http.spec import States
from progrock.backends.http.values import as_text
from progrock.backends.templates import MISSING

_MOST_NAMES = 30
_DEEPEST = 6
_MOST_PLACES = 3


def written(value: Any, longest: int = 200) -> str:
    """A value as JSON, shortened."""
    try:
        text = as_text([value]) or ""
    except TypeError:
        return f"a {type(value).__name__}"
    return shortened(text[1:-1], longest)


def nothing(expression: str, looked_in: Any, answer: Answer, what: str) -> str:
    """What there is in place of what an expression looked for; `what` names where it looked."""
    if expression.startswith("the header "):
        return f"the answer has these headers: {_names(answer.headers)}"
    if looked_in is MISSING:
        if not answer.raw:
            size = "too large to be read" if answer.raw is None else "empty"
            return f"{what} is {size}"
        kind = answer.headers.get("content-type", "no type")
        return f"{what} is not JSON ({kind})"
    path = []
    if re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", expression, re.ASCII):
        for name in expression.split("."):
            if not isinstance(looked_in, dict) or name not in looked_in:
                break
            looked_in = looked_in[name]
            path.append(name)
    return _shape(f"`{'.'.join(path)}`" if path else what, looked_in)


def _shape(what: str, value: Any) -> str:
    if isinstance(value, dict):
        return f"{what} has these keys: {_names(value)}" if value else f"{what} is an empty object"
    if isinstance(value, list):
        if not value:
            return f"{what} is an empty list"
        return _shape(f"{what} is a list of {len(value)}, and the first entry", value[0])
    return f"{what} is {written(value, 100)}"


def _names(names: Mapping[str, Any]) -> str:
    each = list(dict.fromkeys(names))  # headers may have the same name twice
    more = f" and {len(each) - _MOST_NAMES} more" if len(each) > _MOST_NAMES else ""
    return ", ".join(each[:_MOST_NAMES]) + more


# Where it might have been found


def of_a_state(states: States, body: Any) -> str:
    """Where an answer has a word that stands in `states`, as the end of a sentence."""

    def fits(value: Any) -> bool:
        return isinstance(value, str) and value.strip().lower() in states.words

    return _found(body, fits, "holds {} , which stands in `states`")


def of_a_list(body: Any) -> str:
    """Where an answer has a list of objects, as the end of a sentence."""

    def fits(value: Any) -> bool:
        return isinstance(value, list) and bool(value) and isinstance(value[0], dict)

    return _found(body, fits, "is a list of objects")


def of_a_handle(handle: str, body: Any) -> str:
    """Where an answer has the job's handle, as the end of a sentence."""

    def fits(value: Any) -> bool:
        return isinstance(value, str | int) and str(value) == handle

    return _found(body, fits, "is the handle")


def _found(body: Any, fits: Callable[[Any], bool], sentence: str) -> str:
    told = []
    for path, value in _places(body, fits):
        told.append(f"`{path or '@'}` {sentence.replace('{} ', written(value, 50))}")
        if len(told) == _MOST_PLACES:
            break
    return "; " + " and ".join(told) if told else ""


def _places(
    value: Any, fits: Callable[[Any], bool], path: str = "", depth: int = 0
) -> Iterator[tuple[str, Any]]:
    """Where a value fits, as JMESPath. Does not look inside a value that fits."""
    if fits(value):
        yield path, value
    elif depth < _DEEPEST:
        inner: list[tuple[str, Any]] = []
        if isinstance(value, dict):
            inner = [
                (f"{path}.{_name(name)}" if path else _name(name), value[name]) for name in value
            ]
        elif isinstance(value, list):
            inner = [(f"{path}[{i}]", each) for i, each in enumerate(value[:_MOST_PLACES])]
        for at, each in inner:
            yield from _places(each, fits, at, depth + 1)


def _name(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII) else f'"{name}"'


def of_a_wrong_word(states: States, word: str) -> str:
    """Why a word says nothing: what stands in `states`."""
    lists = ", ".join(
        f"{state} = {written(_of(states, state))}"
        for state in dict.fromkeys([*states.words.values(), *states.statuses.values()])
    )
    return f"{written(word, 100)}, which stands in no list of `states`: {lists}"


def _of(states: States, state: str) -> list[str | int]:
    both: list[tuple[str | int, str]] = [*states.words.items(), *states.statuses.items()]
    return [word for word, means in both if means == state]
