"""The data that ships with flambeau: 1,797 handwritten digits (see README.txt for their source and licence)."""

from __future__ import annotations

from importlib.resources import files

import numpy as np

__all__ = ["digits"]


def digits() -> tuple[np.ndarray, np.ndarray]:
    """The UCI digits: images, uint8 (1797, 8, 8) with values 0 to 16, and labels, uint8 (1797,).

    >>> images, labels = digits()
    >>> images.shape, labels[:5].tolist()
    ((1797, 8, 8), [0, 1, 2, 3, 4])
    """
    with (files(__name__) / "digits.npz").open("rb") as file, np.load(file, allow_pickle=False) as data:
        return data["images"], data["labels"]
