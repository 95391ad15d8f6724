"""A program run with flambeau and with PyTorch, and what came out compared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import flambeau
from flambeau.core.pytree import tree_map


def plain(tree: Any) -> Any:
    """Tensors as (dtype, values)."""
    return tree_map(lambda t: (str(t.dtype), np.asarray(t.detach().tolist())) if hasattr(t, "detach") else t, tree)


def outcome(program: Callable[[Any], Any], torch: Any) -> Any:
    torch.manual_seed(0)
    try:
        return plain(program(torch))
    except Exception as e:
        return type(e), str(e).splitlines()[0]


def check(program: Callable[[Any], Any]) -> None:
    """Same structure, dtypes and values, or the same error: its class and its first line."""
    torch = pytest.importorskip("torch")
    ours, theirs = outcome(program, flambeau), outcome(program, torch)
    same(ours, theirs)


def same(ours: Any, theirs: Any) -> None:
    if isinstance(theirs, np.ndarray):
        assert isinstance(ours, np.ndarray) and ours.shape == theirs.shape, (ours, theirs)
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-6)
    elif isinstance(theirs, (tuple, list)):
        assert type(ours).__name__ == type(theirs).__name__ and len(ours) == len(theirs), (ours, theirs)
        for a, b in zip(ours, theirs):
            same(a, b)
    elif isinstance(theirs, dict):
        assert list(ours) == list(theirs)
        for k in theirs:
            same(ours[k], theirs[k])
    else:
        assert ours == theirs
