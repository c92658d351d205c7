"""Files that are the colour channels of one picture, as microscopes export them: `a_ch00.tif`, `a_ch01.tif`.

Each would be counted as a field of its own, and each cell as often as there are channels.
"""

import re
from collections import defaultdict
from collections.abc import Iterable
from typing import Final

from services.imaging.decoding.refusals import CONVERT, FieldSeparateChannels
from services.imaging.types import RGB

MOST_CHANNELS: Final = 6
"""More files than this that differ in one number are rather numbered fields."""

# Leica: _ch00. Zeiss: _c1. Olympus: C001. MetaMorph: _w1DAPI. Others: -red, _G, Channel 1.
_CHANNEL: Final = re.compile(
    r"(?<![A-Za-z0-9])(?:(?:ch(?:annel|an)?|kanal|c)[ _-]?\d{1,3}(?!\d)|w\d{1,2}[A-Za-z]*(?![A-Za-z0-9]))"
    r"|(?<![A-Za-z])(?:red|green|blue|rot|gr[uü]n|blau|[rgb])(?![A-Za-z])",
    re.IGNORECASE,
)


def channel_files(names: Iterable[str]) -> frozenset[str]:
    """Those of `names` (with their folders) that differ from 1 to 5 others in nothing but the name of a channel."""
    groups: dict[tuple[str, str], set[str]] = defaultdict(set)
    for name in names:
        for found in _CHANNEL.finditer(name, name.rfind("/") + 1):
            groups[name[: found.start()].lower(), name[found.end() :].lower()].add(name)
    return frozenset(name for group in groups.values() if 2 <= len(group) <= MOST_CHANNELS for name in group)


def check_one_channel(name: str, pixels: RGB) -> None:
    """Refuse a picture that is named as one of several channels, where it is without colour.

    Raises:
        FieldSeparateChannels
    """
    if (pixels[..., 0] == pixels[..., 1]).all() and (pixels[..., 1] == pixels[..., 2]).all():
        raise FieldSeparateChannels(
            f"{name}: by its name one of several channels of a picture, and without colour; join them to one picture:"
            f" {CONVERT}"
        )
