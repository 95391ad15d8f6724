"""Bags of embeddings."""

from __future__ import annotations

import numpy as np
import pytest

from .harness import Case, F, OperatorTests, tensor

INDEX, OFFSETS, ROWS = [4, 1, 1, 3, 0, 2], [0, 2, 2, 5], np.array([[1, 2, 2], [0, 4, 1]])


def runs(**options):
    return lambda T, w, *s: T.nn.functional.embedding_bag(
        T.tensor(INDEX), w, T.tensor(OFFSETS), per_sample_weights=s[0] if s else None, **options
    )


CASES = [
    *[Case(mode, runs(mode=mode), [(5, 3)], node=mode != "max") for mode in ("sum", "mean", "max")],
    *[Case(f"{mode}_rows", lambda T, w, mode=mode: T.nn.functional.embedding_bag(T.from_numpy(ROWS), w, mode=mode), [(5, 3)],
           node=False) for mode in ("sum", "mean", "max")],
    *[Case(f"{mode}_padding", runs(mode=mode, padding_idx=1), [(5, 3)], node=False) for mode in ("sum", "mean", "max")],
    Case("weighted", runs(mode="sum"), [(5, 3), (6,)], node=False),
    Case("last_offset", lambda T, w: T.nn.functional.embedding_bag(
        T.tensor(INDEX), w, T.tensor([*OFFSETS, 6]), mode="sum", include_last_offset=True), [(5, 3)]),
]  # fmt: skip


class TestBags(OperatorTests):
    cases = CASES


@pytest.mark.parametrize("index, offsets, error, phrase", [
    ([1, 7], [0], RuntimeError, "Index 1 of input takes value 7 which is not in the valid range [0, 5)"),
    ([1, 2], [1], RuntimeError, "offsets[0] has to be 0"),
    ([[1, 2]], [0], ValueError, "if input is 2D, then offsets has to be None"),
])  # fmt: skip
def test_messages(index, offsets, error, phrase):
    with pytest.raises(error) as e:
        F.nn.functional.embedding_bag(tensor(np.array(index)), tensor(np.ones((5, 2))), tensor(np.array(offsets)))
    assert phrase in str(e.value)
