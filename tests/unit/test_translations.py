"""Every text that people see can be translated, and German has all of them."""

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from babel.messages.extract import extract
from babel.messages.mofile import read_mo
from babel.messages.pofile import read_po
from django.utils.translation import override
from django.utils.translation.template import templatize

from progrock import texts, wire
from progrock.audiences import not_admitted
from progrock.consumers.entry import DATABASE_AWAY
from progrock.models import Job
from tests.services import ROOT

PACKAGE = ROOT / "site/progrock"
CATALOGS = sorted(PACKAGE.glob("locale/*/LC_MESSAGES/django.po"))
WORDS = {"_": None, "gettext": None, "gettext_lazy": None, "gettext_noop": None, "ngettext": (1, 2)}

Words = str | tuple[str, ...]


def written() -> Iterator[Words]:
    """Each text in the code that can be translated, with its plural form where it has one."""
    for file in sorted(PACKAGE.rglob("*.py")):
        yield from words_of(file.read_text())
    for file in sorted(PACKAGE.rglob("*.html")):
        source = templatize(file.read_text(), origin=str(file))
        yield from words_of("\n".join(line.strip() for line in source.splitlines()))


def words_of(source: str) -> Iterator[Words]:
    for _, found, *_ in extract("python", io.BytesIO(source.encode()), WORDS):
        yield _words(found)


def catalog(file: Path) -> dict[Words, Words]:
    read = read_po if file.suffix == ".po" else read_mo
    with file.open("rb") as opened:
        found = [(each.id, each.string) for each in read(opened) if each.id]
    return {_words(text): _words(translated) for text, translated in found}


def _words(found: Any) -> Words:
    return found if isinstance(found, str) else tuple(found)


@pytest.mark.parametrize("file", CATALOGS, ids=lambda file: file.parts[-3])
def test_a_language_has_each_text_and_no_other(file: Path) -> None:
    there, wanted = catalog(file), set(written())
    assert wanted - there.keys() == set()
    assert there.keys() - wanted == set()
    for text, translated in there.items():
        assert all([translated] if isinstance(translated, str) else translated), text


@pytest.mark.parametrize("file", CATALOGS, ids=lambda file: file.parts[-3])
def test_a_translation_has_the_holes_of_its_text(file: Path) -> None:
    for text, translated in catalog(file).items():
        source = [text] if isinstance(text, str) else text
        for each in [translated] if isinstance(translated, str) else translated:
            assert holes(each) == holes(source[-1]), each


def holes(text: str) -> set[str]:
    return set(re.findall(r"\{\w+\}|%\(\w+\)[sd]", text))


@pytest.mark.parametrize("file", CATALOGS, ids=lambda file: file.parts[-3])
def test_what_django_reads_is_made_of_what_people_write(file: Path) -> None:
    assert catalog(file.with_suffix(".mo")) == catalog(file)


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.html")), ids=lambda file: file.name)
def test_no_template_has_words_that_cannot_be_translated(file: Path) -> None:
    html = re.sub(r"\{% blocktranslate.*?endblocktranslate %\}", "", file.read_text(), flags=re.S)
    html = re.sub(r"\{[%#].*?[%#]\}|\{\{.*?\}\}", "", html, flags=re.S)
    read_out = re.findall(r'(?:aria-label|title|placeholder|alt)="([^"]*)"', html)
    shown = re.sub(r"<(script|style).*?</\1>|<[^>]*>", "\n", html, flags=re.S)
    words = re.findall(r"[A-Za-z]{3,}", "\n".join([*read_out, shown]))
    assert set(words) <= {"ProgRock"}


def test_the_client_knows_the_servers_usual_sentences_word_for_word() -> None:
    """It knows them again and shows the text of the same code in the page's language."""
    told: dict[str, Any] = texts.client_texts()
    for code, sentence in wire.DELAYED.items():
        assert told[f"told_{code}"] == sentence
    refused = not_admitted(None)
    assert told[f"told_{refused.code}"] == refused.message
    assert told["told_unavailable"] == DATABASE_AWAY
    entry = (ROOT / "consumers/entry.py").read_text()
    for code in ("busy", "too_many_sockets"):
        assert f'Refused("{code}", "{told[f"told_{code}"]}")' in entry


def test_german_is_spoken_by_the_admin_and_told_to_the_client() -> None:
    with override("de"):
        assert str(Job._meta.verbose_name) == "Auftrag"
        assert texts.different(texts.client_texts)["state_running"] == "Läuft"
