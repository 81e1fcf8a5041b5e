"""Makes the README fit for the package index, where links relative to the repository lead nowhere.

hatchling runs this at each build (`[tool.hatch.metadata.hooks.custom]` in pyproject.toml). With a
`Repository` in `[project.urls]`, links and pictures lead there. Without one, pictures are left out
and links become plain text, so that the page on the index has nothing broken.
"""

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

#: A link or picture in Markdown: `[text](target)` or `![text](target)`, the target without spaces.
_LINK = re.compile(r"(?P<picture>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)")


def for_index(text: str, repository: str | None) -> str:
    """The README's Markdown for the index; `repository` is the address of the project."""

    def link(match: re.Match[str]) -> str:
        picture, words, target = match["picture"], match["text"], match["target"]
        if re.match(r"[a-z]+:|#", target):
            return match[0]
        if not repository:
            return "" if picture else words
        kind = "raw" if picture else "blob"
        return f"{picture}[{words}]({repository.rstrip('/')}/{kind}/HEAD/{target})"

    return re.sub(r"\n{3,}", "\n\n", _LINK.sub(link, text))


class CustomMetadataHook(MetadataHookInterface):
    """hatchling's hook; it finds the class by its base."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set the readme of the package's metadata."""
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        repository = metadata.get("urls", {}).get("Repository")
        metadata["readme"] = {
            "content-type": "text/markdown",
            "text": for_index(text, repository),
        }
