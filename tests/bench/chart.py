"""Draws the chart for docs/measured.md: an SVG that is readable on light and on dark pages."""

from collections.abc import Sequence
from html import escape

from tests.bench.lines import Line
from tests.bench.stand import BOUND

WIDTH, BAR, HEADING, NAMES, FIGURE = 860, 26, 30, 400, 60
GROUPS = {
    "poll": "No backend to wait for",
    "http": "Over HTTP, one request a job",
    "many": "Over HTTP, one request for up to 100 jobs",
}


def chart(lines: Sequence[Line], machine: str) -> str:
    """The poll cycles a second of ProgRock and its peers.

    Other lines are left out. A rate that was not held gets words in place of a bar.
    """
    cycles = [line for line in lines if line.unit.startswith("cycles/s") and line.group in GROUPS]
    most = max((line.value for line in cycles if _held(line)), default=1.0)
    title = f"Poll cycles a second, p99 lateness ≤ {BOUND * 1e3:.0f} ms"
    rows, y = [], 34
    for group, heading in GROUPS.items():
        if bars := [line for line in cycles if line.group == group]:
            rows.append(f'<text x="8" y="{y + 18}" class="s">{heading}</text>')
            y += HEADING
            # The sort keeps the order of ours, of which one begins with "…" after another.
            for line in sorted(bars, key=lambda line: line.peer):
                rows.append(_row(line, y, most))
                y += BAR
    height = y + 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}"'
        f' width="{WIDTH}" height="{height}" role="img">',
        f"<title>{title}</title>",
        "<style>text{font:13px system-ui,sans-serif;fill:#1f2328}.o{fill:#0969da}.p{fill:#8c959f}",
        "text.t{font-weight:600}text.s{font-size:11px}text.s,text.n{fill:#59636e}",
        "@media(prefers-color-scheme:dark){text{fill:#f0f6fc}.o{fill:#4493f8}.p{fill:#6e7681}"
        "text.s,text.n{fill:#9198a1}}</style>",
        f'<text x="8" y="20" class="t">{title}</text>',
        _legend(WIDTH - 170, "o", "ProgRock"),
        _legend(WIDTH - 84, "p", "others"),
        *rows,
        f'<text x="8" y="{height - 10}" class="s">{escape(machine)}</text>',
    ]
    return "\n".join([*parts, "</svg>", ""])


def _legend(x: int, kind: str, name: str) -> str:
    return (
        f'<rect x="{x}" y="10" width="11" height="11" rx="2" class="{kind}"/>'
        f'<text x="{x + 17}" y="20" class="s">{name}</text>'
    )


def _held(line: Line) -> bool:
    return float(line.detail["p99"]) <= BOUND


def _row(line: Line, y: int, most: float) -> str:
    name = f'<text x="8" y="{y + 14}">{escape(line.what)}</text>'
    if not _held(line):
        said = f"held nothing ({line.value:,.0f}/s at p99 {line.detail['p99'] * 1e3:,.0f} ms)"
        return f'{name}<text x="{NAMES}" y="{y + 14}" class="n">{said}</text>'
    width = max(2.0, line.value / most * (WIDTH - NAMES - FIGURE))
    kind = "p" if line.peer else "o"
    return (
        f'{name}<rect x="{NAMES}" y="{y}" width="{width:.0f}" height="{BAR - 7}" rx="3"'
        f' class="{kind}"/><text x="{NAMES + width + 6:.0f}" y="{y + 14}">{line.value:,.0f}</text>'
    )
