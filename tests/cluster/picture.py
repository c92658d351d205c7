"""The replicas of the slide workers over time: `python -m tests.cluster.picture RECORD.json PICTURE.png`."""

import json
import sys
from pathlib import Path
from typing import Any, Final

from PIL import Image, ImageDraw, ImageFont

_WIDTH, _HEIGHT = 1800, 840
_LEFT, _RIGHT, _TOP, _BOTTOM, _GAP = 80, 30, 90, 80, 90
_PANEL: Final = (_HEIGHT - _TOP - _BOTTOM - _GAP) // 2
_TEXT, _GRID, _MARK = "#333333", "#e2e2e2", "#b03a2e"
_FILLS: Final = {"ready": "#c5d4ea", "waiting": "#f2cda8", "running": "#8fc3a6"}
_LINE: Final = "#2f5fa5"
_MINUTES: Final = (1, 2, 5, 10, 20)

Steps = list[tuple[float, float]]


def draw(record: dict[str, Any]) -> Image.Image:
    """Two panels over the same minutes: workers ready and wanted; slides waiting and running."""
    samples = [s for s in record["samples"] if s["wanted"] is not None and s["queued"] is not None]
    end = max(s["at"] for s in samples)
    image = Image.new("RGB", (_WIDTH, _HEIGHT), "white")
    panels = _Panels(ImageDraw.Draw(image), end)
    wanted = [(s["at"], s["wanted"]) for s in samples]
    ready = [(s["at"], s["ready"]) for s in samples]
    most = max(1, *(value for _, value in wanted + ready))
    panels.draw(0, "slide workers", most, {"ready": ready})
    panels.line(0, most, "wanted", wanted)
    outstanding = [(s["at"], s["queued"] + s["running"]) for s in samples]
    running = [(s["at"], s["running"]) for s in samples]
    panels.draw(1, "slides", max(1, *(value for _, value in outstanding)), {"waiting": outstanding, "running": running})
    panels.events([at for at, _ in record["events"]])
    panels.minutes()
    return image


class _Panels:
    def __init__(self, pen: ImageDraw.ImageDraw, end: float) -> None:
        self._pen, self._end = pen, end
        self._font = ImageFont.load_default(26)
        self._legend = _WIDTH - _RIGHT

    def _x(self, seconds: float) -> float:
        return _LEFT + seconds / self._end * (_WIDTH - _LEFT - _RIGHT)

    @staticmethod
    def _floor(panel: int) -> int:
        return _TOP + _PANEL + panel * (_PANEL + _GAP)

    def _corners(self, panel: int, steps: Steps, most: float) -> Steps:
        """What a value stays at until the next sample, in pixels."""
        corners = []
        for (at, value), (until, _) in zip(steps, [*steps[1:], (self._end, 0.0)], strict=True):
            y = self._floor(panel) - value / most * _PANEL
            corners += [(self._x(at), y), (self._x(until), y)]
        return corners

    def draw(self, panel: int, title: str, most: float, curves: dict[str, Steps]) -> None:
        """A panel from 0 to `most` with its areas, the first behind the others."""
        floor = self._floor(panel)
        for name, steps in curves.items():
            corners = self._corners(panel, steps, most)
            self._pen.polygon([(corners[0][0], floor), *corners, (corners[-1][0], floor)], fill=_FILLS[name])
        step = max(1, round(most / 4))
        for value in range(0, int(most) + 1, step):
            y = floor - value / most * _PANEL
            self._pen.line([(_LEFT, y), (_WIDTH - _RIGHT, y)], fill=_GRID if value else _TEXT, width=2)
            self._pen.text((_LEFT - 12, y), str(value), _TEXT, self._font, anchor="rm")
        self._pen.text((_LEFT, floor - _PANEL - 14), title, _TEXT, self._font, anchor="ls")
        self._legend = _WIDTH - _RIGHT
        for name in curves:
            self._key(panel, name, _FILLS[name])

    def line(self, panel: int, most: float, name: str, steps: Steps) -> None:
        """One more curve of a panel that is drawn."""
        self._pen.line(self._corners(panel, steps, most), fill=_LINE, width=4)
        self._key(panel, name, _LINE)

    def _key(self, panel: int, name: str, colour: str) -> None:
        y = self._floor(panel) - _PANEL - 14
        self._pen.text((self._legend, y), name, _TEXT, self._font, anchor="rs")
        self._legend -= int(self._font.getlength(name)) + 12
        self._pen.rectangle([self._legend - 22, y - 20, self._legend, y], fill=colour)
        self._legend -= 50

    def events(self, moments: list[float]) -> None:
        """A numbered line through both panels for each."""
        taken = 0.0
        for number, at in enumerate(moments, start=1):
            x = self._x(at)
            for y in range(_TOP - 10, self._floor(1), 12):
                self._pen.line([(x, y), (x, y + 6)], fill=_MARK, width=2)
            taken = max(x, taken)
            self._pen.text((taken, 36), str(number), _MARK, self._font, anchor="ms")
            taken += 30

    def minutes(self) -> None:
        """The axis below."""
        each = next((minutes for minutes in _MINUTES if self._end / 60 / minutes <= 16), _MINUTES[-1])
        for minute in range(0, int(self._end // 60) + 1, each):
            self._pen.text((self._x(minute * 60), _HEIGHT - 62), str(minute), _TEXT, self._font, anchor="ma")
        self._pen.text((_WIDTH - _RIGHT, _HEIGHT - 30), "minutes", _TEXT, self._font, anchor="rm")


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))).save(sys.argv[2], optimize=True)
