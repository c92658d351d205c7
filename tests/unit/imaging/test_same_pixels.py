"""The same bytes give the same pixels, whatever was in memory before."""

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.places import CHECKOUT
from tests.unit.imaging.field_files import CORPUS, DEEP, FIELD, TWELVE, decode, drawn_field, planes, saved, tiff


def poison(level: int) -> None:
    """Leave memory of every size that a decoder may ask for full of `level`."""
    for size in (2**12, 2**15, 3 * FIELD[..., 0].size, 6 * FIELD[..., 0].size, 2**18, 2**20):
        held = [np.full(size, level, np.uint8) for _ in range(4)]
        del held


def digests() -> dict[str, str]:
    """A digest of the pixels of every file of the corpus."""
    return {name: hashlib.sha256(decode(data).pixels.tobytes()).hexdigest() for name, data in CORPUS.items()}


@pytest.mark.parametrize("name", CORPUS)
def test_a_field_decodes_alike_between_other_fields(name: str) -> None:
    others = [
        saved(drawn_field(9), "PNG"),
        tiff(planes(drawn_field(9).astype(np.uint16) * 257), planarconfig="separate"),
    ]
    seen = []
    for level, between in ((0x55, others[0]), (0xAA, others[1]), (0xFF, others[0])):
        decode(between)
        poison(level)
        seen.append(decode(CORPUS[name]).pixels)
    np.testing.assert_array_equal(seen[0], seen[1])
    np.testing.assert_array_equal(seen[0], seen[2])
    exact = FIELD if "grey" not in name else np.dstack([FIELD[..., 1]] * 3)
    np.testing.assert_allclose(seen[0].astype(int), exact, atol=12 if "jpeg" in name else 0)


def test_memory_that_is_full_of_something_else_changes_nothing() -> None:
    """glibc fills what it gives and takes back: pixels that nobody wrote would follow."""
    seen = []
    for pattern in ("85", "170"):
        environment = {**os.environ, "MALLOC_PERTURB_": pattern}
        code = "from tests.unit.imaging.test_same_pixels import digests; print(digests())"
        run = subprocess.run(
            [sys.executable, "-c", code], cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=True
        )
        seen.append(run.stdout)
    assert seen[0] == seen[1] == f"{digests()}\n"


@pytest.mark.parametrize("deep", [DEEP, TWELVE], ids=["16-bit", "12-bit"])
def test_planes_apart_or_together_are_the_same_picture(deep: NDArray[np.uint16]) -> None:
    together = decode(tiff(deep, rowsperstrip=24))
    for options in ({"rowsperstrip": 24}, {"tile": (32, 32)}, {"compression": "lzw", "predictor": True}):
        apart = decode(tiff(planes(deep), planarconfig="separate", **options))
        assert apart.notes == together.notes == ("depth_16_bit",)
        np.testing.assert_array_equal(apart.pixels, together.pixels)
        np.testing.assert_array_equal(apart.pixels, FIELD)
