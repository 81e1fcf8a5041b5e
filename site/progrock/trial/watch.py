"""Prints what is sent to a backend and what it answers, and what each key of the table found."""

from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Any, NamedTuple

from progrock.backends import BackendError, Status
from progrock.backends.errors import shortened
from progrock.backends.http.answers import Answer
from progrock.backends.http.client import HttpBackend
from progrock.backends.http.outgoing import Outgoing
from progrock.backends.http.reader import UNKNOWN_JOB
from progrock.backends.http.spec import HttpSpec
from progrock.backends.http.values import progress
from progrock.backends.templates import MISSING
from progrock.trial import hints
from progrock.trial.hints import written
from progrock.trial.masks import Mask

Say = Callable[[str], None]
#: Headers of an answer that may matter to its reader.
_SHOWN_HEADERS = (
    "content-type",
    "location",
    "content-location",
    "operation-location",
    "azure-asyncoperation",
    "retry-after",
    "retry-after-ms",
    "x-ms-retry-after-ms",
    "www-authenticate",
)
_LONGEST_BODY = 1200


@dataclass
class Note:
    """What one key found in one answer, several times where the answer lists several jobs."""

    key: str
    expression: str
    found: list[Any]

    @property
    def name(self) -> str:
        """The key with its expression, such as `state` ("render.status")."""
        expression = self.expression
        if not expression.startswith("the header "):
            expression = f'"{expression}"'
        return f"`{self.key}` ({expression})"


class Handle(NamedTuple):
    """Which key found the job's handle, for a complaint about it."""

    by: str
    value: str


class Watch:
    """Prints all that one backend is asked and answers.

    A call begins with `call` and ends with `complaint`.
    """

    def __init__(self, spec: HttpSpec, mask: Mask, say: Say) -> None:
        self._spec, self._mask, self._say = spec, mask, say
        self._handle = ""
        self._origin: Handle | None = None
        self._name = ""  # of the request that was sent last
        self._answer: Answer | None = None
        self._sent = 0.0
        self._notes: dict[str, Note] = {}
        self._hinted: set[tuple[str, str]] = set()
        self._ever: dict[str, tuple[str, bool]] = {}  # by key: its name, and whether it found any

    def attach(self, backend: HttpBackend) -> None:
        """Print what this backend asks and finds."""
        backend.listen(self._observe, self._note)

    def call(self, handle: str) -> None:
        """A call begins, about a job with this handle."""
        self._handle, self._name, self._answer = handle, "", None
        self._notes = {}
        if handle:
            self._mask.keep.add(handle)

    def never_found(self) -> list[str]:
        """The keys that were looked up and never found anything."""
        return [name for name, ever in self._ever.values() if not ever]

    def complaint(self, outcome: object) -> str:
        """Print what was found. Returns what spoiled a call that failed, and "" for any other."""
        if not isinstance(outcome, BackendError):
            reason = self._without_a_reason(outcome)
            self._tell_notes()
            if reason:
                self._say(f"    {reason}")
            return ""
        key, sentence = self._complaint()
        self._tell_notes(but=key)
        if not sentence:
            return outcome.sentence + self._doubt(outcome)
        self._say(f"  !! {sentence}")
        return sentence

    # What the backend tells of

    def _observe(self, outgoing: Outgoing, answer: Answer | None) -> None:
        if answer is None:
            self._tell_notes()
            self._name, self._answer, self._sent = outgoing.name, None, monotonic()
            self._tell_request(outgoing)
        else:
            self._answer = answer
            self._tell_answer(answer)

    def _note(self, key: str, expression: str, found: Any) -> None:
        key = key.replace(" ", ".")
        note = self._notes.setdefault(key, Note(key, expression, []))
        note.found.append(found)
        if key == "handle" and found is not None:
            self._origin = Handle(note.name, str(found))
        ever = self._ever.get(key, ("", False))[1] or found is not None
        self._ever[key] = (note.name, ever)

    # Requests and answers

    def _tell_request(self, outgoing: Outgoing) -> None:
        mask = self._mask
        mask.read_files()
        self._say(f"  > {outgoing.method} {mask.request(outgoing.url)}")
        for name, value in outgoing.headers.items():
            self._say(f"    {name}: {mask.header(name, value)}")
        if outgoing.body:
            self._tell_body(mask.request(outgoing.body.decode("utf-8", "replace")))

    def _tell_answer(self, answer: Answer) -> None:
        self._say(f"  < {answer.status} after {(monotonic() - self._sent) * 1000:.0f} ms")
        wanted = {*_SHOWN_HEADERS, *self._headers_of_the_table()}
        for name, value in answer.headers.items():
            if name.lower() in wanted:
                self._say(f"    {name}: {shortened(self._mask.text(value), 500)}")
        if answer.raw is None:
            self._say(f"    (a body that is too large: {answer.too_large})")
        elif answer.json is not MISSING:
            self._tell_body(written(self._mask.value(answer.json), _LONGEST_BODY))
        elif answer.raw:
            self._tell_body(self._mask.text(answer.raw.decode("utf-8", "replace")))

    def _tell_body(self, body: str) -> None:
        for line in shortened(body.strip(), _LONGEST_BODY).splitlines():
            self._say(f"    {line}")

    def _headers_of_the_table(self) -> set[str]:
        spec, of = self._spec, "the header "
        values = (spec.handle, spec.state, spec.progress, spec.message, spec.result, spec.error)
        names = (each.written for each in (*values, spec.moves) if each)
        return {name.removeprefix(of).lower() for name in names if name.startswith(of)}

    # What was found

    def _tell_notes(self, but: str = "") -> None:
        for note in self._notes.values():
            if note.key != but:
                self._say(f"    {self._sentence(note)}")
        self._notes = {}

    def _sentence(self, note: Note) -> str:
        found = [each for each in note.found if each is not None]
        if not found:
            hint = ""
            if self._answer and (self._name, note.key) not in self._hinted:
                self._hinted.add((self._name, note.key))
                hint = f"; {self._what_there_is(note)}"
            return f"{note.name} found nothing{hint}"
        if note.key == "poll_many.items" and isinstance(found[-1], list):
            return f"{note.name} found a list of {len(found[-1])}"
        values = list(dict.fromkeys(written(self._mask.value(each)) for each in found))
        more = f" and {len(values) - 3} more" if len(values) > 3 else ""
        sentence = f"{note.name} found {', '.join(values[:3])}{more}"
        if note.key == "progress" and progress(found[-1], self._spec.progress_scale) is None:
            sentence += ", which is no progress"
        return sentence

    def _what_there_is(self, note: Note) -> str:
        assert self._answer is not None
        what, value = self._looked_in(note.key)
        return hints.nothing(note.expression, self._mask.value(value), self._answer, what)

    def _looked_in(self, key: str) -> tuple[str, Any]:
        """What a key was looked up in, by its name and value: the answer, or the job's item."""
        body = self._answer.json if self._answer else MISSING
        items = self._items()
        if self._name != "poll_many" or key == "poll_many.items" or not items:
            return "the answer", body
        if key == "poll_many.id":
            return "the first item", items[0]
        ids = self._notes["poll_many.id"].found
        mine = (item for item, each in zip(items, ids, strict=False) if str(each) == self._handle)
        return "the job's item", next(mine, items[0])

    def _items(self) -> list[Any]:
        note = self._notes.get("poll_many.items")
        found = note.found[-1] if note else None
        return found if isinstance(found, list) else []

    def _without_a_reason(self, outcome: object) -> str:
        """What to say where a job has failed and the table has no key for its reason."""
        failed = isinstance(outcome, Status) and outcome.state == "failed" and not outcome.error
        if not failed or self._spec.error or self._answer is None:
            return ""
        there = self._what_there_is(Note("error", "", []))
        return f"without `error` the page cannot say why the job failed; {there}"

    # What is wrong

    def _complaint(self) -> tuple[str, str]:
        """The first of the keys without which nothing is known, and what is wrong with it."""
        if self._answer is None:
            return "", ""
        for key, complaint in (
            ("handle", self._of_handle),
            ("poll_many.items", self._of_items),
            ("poll_many.id", self._of_id),
            ("state", self._of_state),
        ):
            if self._answer.status >= 300 and key != "handle":
                break  # the backend says what is wrong
            if (note := self._notes.get(key)) and (sentence := complaint(note)):
                return key, sentence
        return "", ""

    def _of_handle(self, note: Note) -> str:
        if note.found[-1] is None:
            return f"{note.name} found nothing; {self._what_there_is(note)}"
        return f"{note.name} found {self._value(note)}, which cannot be a handle"

    def _of_items(self, note: Note) -> str:
        assert self._answer is not None
        lists = hints.of_a_list(self._mask.value(self._answer.json))
        if note.found[-1] is None:
            return f"{note.name} found nothing; {self._what_there_is(note)}{lists}"
        if not isinstance(note.found[-1], list):
            return f"{note.name} found {self._value(note)}, which is no list{lists}"
        if not note.found[-1]:
            return f"{note.name} found an empty list, so the backend names no job{self._doubt()}"
        return ""

    def _of_id(self, note: Note) -> str:
        if self._handle in map(str, note.found):
            return ""
        places = hints.of_a_handle(self._handle, self._items()[0]) if self._items() else ""
        if all(each is None for each in note.found):
            return f"{note.name} found nothing; {self._what_there_is(note)}{places}"
        values = list(dict.fromkeys(written(self._mask.value(each)) for each in note.found))
        return (
            f"{note.name} found {', '.join(values[:3])}, and not the job's handle"
            f" {written(self._handle)}{places}{'' if places else self._doubt()}"
        )

    def _of_state(self, note: Note) -> str:
        word = note.found[-1]
        body = self._mask.value(self._looked_in("state")[1])
        places = hints.of_a_state(self._spec.states, body)
        if word is None:
            return f"{note.name} found nothing; {self._what_there_is(note)}{places}"
        if isinstance(word, str) and word.strip().lower() in self._spec.states.words:
            return ""
        wrong = hints.of_a_wrong_word(self._spec.states, self._mask.value(word))
        return f"{note.name} found {wrong}{places}"

    def _doubt(self, error: BackendError | None = None) -> str:
        """A question about the handle, where the backend does not know it."""
        unknown = error is None or error.forgotten or error.status in UNKNOWN_JOB
        if not unknown or self._origin is None:
            return ""
        value = written(self._mask.value(self._origin.value))
        return (
            f"; {self._origin.by} found {value} in the answer to the start: is that the job's id?"
        )

    def _value(self, note: Note) -> str:
        return written(self._mask.value(note.found[-1]))
