"""Makes `docs/cookbook.md` of the recipes that ship with the package: `make cookbook`."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RECIPES = ROOT / "site/progrock/recipes"
PAGE = ROOT / "docs/cookbook.md"
_HEAD = """\
# Cookbook

Tables for {count} APIs. Copy one into the file that `PROGROCK_BACKENDS` names, and change what its
comment tells you to fill in. [Backends](backends.md) explains the keys.

A test plays each table against an API that answers as the real one is known to answer: jobs that
succeed, that fail, and that are cancelled. The comment says where that knowledge is from.
*Confirmed* names a public document that was looked at, or the server that a test has run
(`make test-servers`). *Own knowledge* was not looked up, so try such a table before you rely on it.

- No table lets browsers start jobs. Before you change that, read what the table takes from
  `params`: whoever may start jobs chooses all of it.
- Names and numbers of your own, such as the id of a project, stand in the table as examples.
  Secrets and addresses are variables that only workers read. `${{file:/run/secrets/token}}` in the
  place of a variable reads a file, and reads it again when it has changed.
- The files are `site/progrock/recipes/*.toml`, and they ship with the package.

Two APIs that were tried need a [class](backends.md#a-backend-that-does-not-speak-http): Gradio,
where a job is a stream of events, and Stability, which wants a multipart upload.
"""


def page() -> str:
    """The page's Markdown: each recipe whole, under the name of its API."""
    recipes = [path.read_text(encoding="utf-8") for path in RECIPES.glob("*.toml")]
    sections = [_HEAD.format(count=len(recipes))]
    for text in sorted(recipes, key=str.lower):
        name, _, rest = text.removeprefix("# ").partition("\n")
        sections.append(f"## {name}\n\n```toml\n{rest}```\n")
    return "\n".join(sections)


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
