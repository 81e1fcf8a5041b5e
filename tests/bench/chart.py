"""The chart for the README: bars of what each can do, as an SVG that is readable on light and on dark pages."""

from collections.abc import Sequence
from html import escape

from tests.bench.scenarios import Line

WIDTH, BAR, NAMES = 860, 26, 400


def chart(lines: Sequence[Line], machine: str) -> str:
    """Poll cycles a second, ours and the peers'; lines of other units are left out."""
    bars = sorted(
        (line for line in lines if line.unit.startswith("cycles/s") and line.group), key=lambda line: -line.value
    )
    most = max((line.value for line in bars), default=1.0)
    height = 60 + BAR * len(bars)
    title = "Poll cycles a second, p99 lateness ≤ 100 ms"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img">',
        f"<title>{title}</title>",
        "<style>text{font:13px system-ui,sans-serif;fill:#24292f}.p{fill:#8c959f}.o{fill:#0969da}",
        ".s{font-size:11px;fill:#57606a}",
        "@media(prefers-color-scheme:dark){text{fill:#e6edf3}.s{fill:#9198a1}.o{fill:#4493f8}}</style>",
        f'<text x="8" y="20" font-weight="600">{title}</text>',
        f'<text x="8" y="{height - 8}" class="s">{escape(machine)}</text>',
    ]
    for n, line in enumerate(bars):
        y = 34 + BAR * n
        width = max(2.0, line.value / most * (WIDTH - NAMES - 90))
        parts.append(
            f'<text x="8" y="{y + 14}">{escape(line.what)}</text>'
            f'<rect x="{NAMES}" y="{y}" width="{width:.0f}" height="{BAR - 7}" rx="3" class="{"p" if line.peer else "o"}"/>'
            f'<text x="{NAMES + width + 6:.0f}" y="{y + 14}">{line.value:,.0f}</text>'
        )
    return "\n".join([*parts, "</svg>", ""])
