"""The same picture twice in a slide: the first counts, whatever files hold the others."""

import numpy as np

from services.imaging.likeness import SAME, SIDE, Signature, likeness


class SeenFields:
    """The fields of a slide that were decoded so far, by what they show. For one thread."""

    def __init__(self) -> None:
        self._keys: list[str] = []
        self._signatures = np.empty((0, SIDE**2), np.int8)

    def first_like(self, signature: Signature) -> str | None:
        """The key of the first field that shows the same; `None` where none does."""
        if not self._keys:
            return None
        alike = np.flatnonzero(likeness(signature[np.newaxis], self._signatures)[0] > SAME)
        return self._keys[alike[0]] if len(alike) else None

    def add(self, key: str, signature: Signature) -> None:
        """Remember a field."""
        self._keys.append(key)
        self._signatures = np.vstack([self._signatures, signature])
