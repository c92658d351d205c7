"""Rules compared as SVG: what waits, and how many workers are paid, over the same night."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final
from xml.sax.saxutils import escape

from services.capacity.nights import on_the_clock
from services.capacity.simulation import Played, Sample

_WIDTH: Final = 900
_LEFT, _RIGHT, _TOP = 64, 16, 44
_PANEL, _GAP = 140, 44
_COLOURS: Final = ("#2a6fbb", "#d1782d", "#777777")
_HOUR_S: Final = 3600


def draw(title: str, played: Mapping[str, Played], due: float) -> str:
    """Two panels with a line for each rule, by its name; a dashed line where the night should have ended, `due`."""
    first = min(rule.samples[0].at for rule in played.values())
    last = max(due, *(rule.samples[-1].at for rule in played.values()))
    height = _TOP + 2 * _PANEL + _GAP + 32

    def x(seconds: float) -> float:
        return _LEFT + (seconds - first) / (last - first) * (_WIDTH - _LEFT - _RIGHT)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img">',
        "<style>text{font:12px sans-serif;fill:#333}.grid{stroke:#e2e2e2}.due{stroke:#b03a2e;stroke-dasharray:4 3}"
        "polyline{fill:none;stroke-width:1.7}</style>",
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/><text x="{_LEFT}" y="18">{escape(title)}</text>',
    ]
    at = float(_WIDTH - _RIGHT)
    for name, colour in reversed(list(zip(played, _COLOURS, strict=False))):
        parts.append(f'<text x="{at:.0f}" y="18" text-anchor="end" style="fill:{colour}">{escape(name)}</text>')
        at -= 7 * len(name) + 18
    values: Sequence[tuple[str, Callable[[Sample], int]]] = (
        ("slides that wait", lambda sample: sample.waiting),
        ("workers", lambda sample: sample.workers),
    )
    for number, (label, value) in enumerate(values):
        parts += _panel(label, played, value, x, _TOP + 14 + _PANEL + number * (_PANEL + _GAP - 14))
    bottom = height - 28
    for hour in range(int(first // _HOUR_S) + 1, int(last // _HOUR_S) + 1, 2):
        clock = on_the_clock(hour * _HOUR_S)[:5]
        parts.append(f'<text x="{x(hour * _HOUR_S):.1f}" y="{bottom + 18}" text-anchor="middle">{clock}</text>')
    parts.append(f'<line class="due" x1="{x(due):.1f}" x2="{x(due):.1f}" y1="{_TOP}" y2="{bottom}"/></svg>')
    return "\n".join(parts) + "\n"


def _panel(
    label: str,
    played: Mapping[str, Played],
    value: Callable[[Sample], int],
    x: Callable[[float], float],
    bottom: float,
) -> list[str]:
    most = max(1, *(value(sample) for rule in played.values() for sample in rule.samples))
    parts = [f'<text x="{_LEFT}" y="{bottom - _PANEL - 6:.0f}">{label}</text>']
    for share in (0, 0.5, 1):
        y = bottom - share * _PANEL
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.0f}" y2="{y:.0f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.0f}" text-anchor="end">{round(share * most):,}</text>')
    for rule, colour in zip(played.values(), _COLOURS, strict=False):
        points = " ".join(f"{x(s.at):.1f},{bottom - value(s) / most * _PANEL:.1f}" for s in rule.samples)
        parts.append(f'<polyline points="{points}" style="stroke:{colour}"/>')
    return parts
