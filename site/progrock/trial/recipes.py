"""The recipes that ship with the package: a table for each of many known services."""

import difflib
import tomllib
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import NamedTuple


class Recipe(NamedTuple):
    """A recipe: its file's name without `.toml`, its title, and the first line of its comment."""

    name: str
    title: str
    about: str


class UnknownRecipe(LookupError):
    """Raised for a name that no recipe has. The text names the nearest one."""


def recipes() -> list[Recipe]:
    """All recipes by name."""
    found = []
    for name, file in sorted(_files().items()):
        text = file.read_text(encoding="utf-8")
        about = text.partition("\n")[0].removeprefix("#").strip() if text[:1] == "#" else ""
        tables = [each for each in tomllib.loads(text).values() if isinstance(each, dict)]
        title = str(tables[0].get("title", name)) if tables else name
        found.append(Recipe(name, title, about))
    return found


def recipe(name: str) -> str:
    """The text of a recipe. Raises UnknownRecipe."""
    found = _files()
    if name in found:
        return found[name].read_text(encoding="utf-8")
    close = difflib.get_close_matches(name.lower(), found, 1, 0.4)
    close = close or [each for each in found if name.lower() in each]
    hint = f"did you mean {close[0]}?" if close else "`manage.py backend recipes` lists them"
    raise UnknownRecipe(f"there is no recipe {name!r}; {hint}")


def _files() -> dict[str, Traversable]:
    folder = files("progrock") / "recipes"
    if not folder.is_dir():
        return {}
    return {
        file.name.removesuffix(".toml"): file
        for file in folder.iterdir()
        if file.name.endswith(".toml")
    }
