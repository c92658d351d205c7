"""Images that are the same cell twice: byte for byte, or re-encoded, resized, turned by 90° or mirrored."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from triton_models.training.data.preparation import read_image

THUMBNAIL_PX: Final = 48
NEAR: Final = 0.95  # re-encoded, resized, turned copies of real cells: 0.985 and up; other cells: seldom above 0.94
_BLOCK: Final = 1024


@dataclass(frozen=True, slots=True)
class Pair:
    """Two images, by their place in the list that was searched. `likeness` 1: the same bytes."""

    first: int
    second: int
    likeness: float
    exact: bool


def thumbnail(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What an image `[H, W, 3]` is compared by: its details `[48, 48]`, mean 0, norm 1.

    Light is taken out by subtracting a wide blur, since every smear has the same bright ground; what is left are edges.
    """
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (THUMBNAIL_PX, THUMBNAIL_PX), interpolation=cv2.INTER_AREA).astype(np.float32)
    details = small - cv2.GaussianBlur(small, (0, 0), 3.0)
    details -= details.mean()
    norm = float(np.linalg.norm(details))
    plain = norm < 1e-3  # an image of one colour is like nothing
    return (np.zeros_like(details) if plain else details / norm).astype(np.float32, copy=False)


def _turned(thumbnails: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    for mirrored in (thumbnails, thumbnails[:, :, ::-1]):
        for quarter in range(4):
            yield np.rot90(mirrored, quarter, axes=(1, 2)).reshape(len(thumbnails), -1)


def seen_again(images: Sequence[Path], held: Sequence[Path], near: float = NEAR) -> set[int]:
    """Which of `images`, by place, show a cell that one of `held` shows.

    Raises:
        ImageUnreadable: names the first file that cannot be read.
    """
    if not images or not held:
        return set()
    shown, kept = (np.stack([thumbnail(read_image(path)) for path in paths]) for paths in (images, held))
    flat = shown.reshape(len(shown), -1)
    likeness = np.max([(flat @ others.T).max(1) for others in _turned(kept)], axis=0)
    return set(np.flatnonzero(likeness >= near).tolist())


def find_duplicates(
    paths: Sequence[Path], thumbnails: NDArray[np.float32], near: float = NEAR, limit: int = 10_000
) -> list[Pair]:
    """Pairs of the same image among `paths`, the most alike first; at most `limit`.

    Args:
        paths: readable files.
        thumbnails: `[N, 48, 48]`, of `thumbnail`.
        near: least correlation, over the 8 ways to turn and mirror one of the two.
        limit: most pairs that are returned.
    """
    digests = [hashlib.sha256(path.read_bytes()).digest() for path in paths]
    pairs: list[Pair] = []
    upright = thumbnails.reshape(len(thumbnails), -1)
    turned = list(_turned(thumbnails))
    for start in range(0, len(paths), _BLOCK):
        block = upright[start : start + _BLOCK]
        likeness = np.max([block @ others[start:].T for others in turned], axis=0)
        rows, columns = np.nonzero(np.triu(likeness >= near, k=1))
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
            first, second = start + row, start + column
            pairs.append(Pair(first, second, float(likeness[row, column]), digests[first] == digests[second]))
    known = {(pair.first, pair.second) for pair in pairs}
    seen: dict[bytes, int] = {}
    for number, digest in enumerate(digests):  # images of one colour have no details to compare
        first = seen.setdefault(digest, number)
        if first != number and (first, number) not in known:
            pairs.append(Pair(first, number, 1.0, True))
    pairs.sort(key=lambda pair: (not pair.exact, -pair.likeness))
    return pairs[:limit]
