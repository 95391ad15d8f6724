"""cat, stack and their kin, and padding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import flambeau

from .harness import FLOATS, Case, F, OperatorTests

ALL = (*FLOATS, "int64", "bool", "complex64")


def pad(*args: Any, **kwargs: Any) -> Any:
    return lambda T, x: T.nn.functional.pad(x, *args, **kwargs)


def np_pad(width: Any, mode: str = "constant") -> Any:
    return lambda x: np.pad(x, width, {"replicate": "edge", "circular": "wrap"}.get(mode, mode))


CASES = [
    Case("cat", lambda T, *ts: T.cat(ts), [(2, 3), (1, 3), (4, 3)], lambda *a: np.concatenate(a), dtypes=ALL),
    Case("cat_last", lambda T, *ts: T.cat(ts, -1), [(2, 3), (2, 1)], lambda *a: np.concatenate(a, -1)),
    Case("cat_axis", lambda T, *ts: T.concat(ts, axis=1), [(2, 3), (2, 1)], lambda *a: np.concatenate(a, 1)),
    Case("cat_empty", lambda T, *ts: T.concatenate(ts), [(2, 3), (0, 3)], lambda *a: np.concatenate(a)),
    Case("cat_twice", lambda T, x: T.cat([x, x * 2, x]), [(2, 2)], lambda x: np.concatenate([x, x * 2, x])),
    Case("cat_one", lambda T, x: T.cat([x]), [(2, 2)], lambda x: x),
    Case("cat_promotes", lambda T, x: T.cat([x, x.double(), T.ones(1, 2, dtype=T.int64)]), [(2, 2)],
         lambda x: np.concatenate([x, x, np.ones((1, 2))])),
    Case("cat_legacy", lambda T, x: T.cat([T.zeros(0), x, T.zeros(0)], 1), [(2, 2)], lambda x: x, dtypes=("float32", "float64")),
    Case("cat_images", lambda T, *ts: T.cat(ts, 1), [(2, 1, 2, 2), (2, 2, 2, 2)], lambda *a: np.concatenate(a, 1)),
    Case("stack", lambda T, *ts: T.stack(ts), [(2, 3), (2, 3)], lambda *a: np.stack(a), dtypes=ALL),
    Case("stack_last", lambda T, *ts: T.stack(ts, -1), [(2, 3), (2, 3)], lambda *a: np.stack(a, -1)),
    Case("stack_scalars", lambda T, *ts: T.stack(ts), [(), ()], lambda *a: np.stack(a)),
    Case("hstack", lambda T, *ts: T.hstack(ts), [(2, 3), (2, 1)], lambda *a: np.hstack(a)),
    Case("hstack_vectors", lambda T, *ts: T.hstack(ts), [(2,), (3,)], lambda *a: np.hstack(a)),
    Case("vstack", lambda T, *ts: T.vstack(ts), [(3,), (2, 3)], lambda *a: np.vstack(a)),
    Case("row_stack", lambda T, *ts: T.row_stack(ts), [(3,), (3,)], lambda *a: np.vstack(a)),
    Case("dstack", lambda T, *ts: T.dstack(ts), [(2, 3), (2, 3)], lambda *a: np.dstack(a)),
    Case("column_stack", lambda T, *ts: T.column_stack(ts), [(3,), (3, 2)], lambda *a: np.column_stack(a)),
    Case("block_diag", lambda T, *ts: T.block_diag(*ts), [(2, 3), (2,), ()], dtypes=ALL),
    Case("pad", pad((1, 2)), [(2, 3)], np_pad(((0, 0), (1, 2))), dtypes=ALL),
    Case("pad_all", pad((1, 0, 2, 1)), [(2, 3)], np_pad(((2, 1), (1, 0)))),
    Case("pad_cut", pad((-1, 2, 1, -1)), [(2, 4)], lambda x: np.pad(x[:1, 1:], ((1, 0), (0, 2)))),
    Case("pad_value", pad((1, 1), value=2.5), [(2, 3)], lambda x: np.pad(x, ((0, 0), (1, 1)), constant_values=2.5)),
    Case("pad_nothing", pad(()), [(2, 3)], lambda x: x),
    Case("constant_pad_nd", lambda T, x: T.constant_pad_nd(x, (1, 1), 2), [(3,)], lambda x: np.pad(x, 1, constant_values=2)),
]  # fmt: skip
WIDTHS = {1: ((2, 1),), 2: ((1, 2), (2, 1)), 3: ((1, 0), (1, 1), (0, 1))}
for _mode in ("reflect", "replicate", "circular"):
    for _n, _w in WIDTHS.items():
        _flat = tuple(v for pair in reversed(_w) for v in pair)
        _np = np_pad(((0, 0), *_w), _mode)
        for _batch in ((), (1,)):
            _full = np_pad(((0, 0), *(((0, 0),) * len(_batch)), *_w), _mode)
            CASES.append(
                Case(
                    f"pad_{_mode}{_n}d{'_batch' * len(_batch)}", pad(_flat, mode=_mode), [(*_batch, 2, *(3,) * _n)], _full,
                    dtypes=("float32", "float64", "int64", "complex64"), node=_mode != "circular",
                )
            )  # fmt: skip
    CASES.append(Case(f"pad_{_mode}_cut", pad((-1, 1), mode=_mode), [(2, 4)], node=_mode != "circular"))
    CASES.append(Case(f"pad_{_mode}_cut_right", pad((2, -1), mode=_mode), [(2, 4)], node=_mode != "circular"))
CASES.append(Case("pad_replicate_far", pad((5, 7), mode="replicate"), [(1, 3)], np_pad(((0, 0), (5, 7)), "replicate")))


class TestJoining(OperatorTests):
    cases = CASES


REFUSED = [
    "T.cat([])", "T.cat([T.zeros(2), 3])", "T.cat(T.zeros(2))", "T.cat(3)", "T.cat([T.zeros(2, 3), T.zeros(2, 4)])",
    "T.cat([T.zeros(2, 3), T.zeros(2, 3)], 2)", "T.cat([T.zeros(2, 3), T.zeros(0), T.zeros(2, 4)])",
    "T.cat([T.zeros(2, 3), T.zeros(2)])", "T.cat([T.tensor(1.0), T.zeros(2)])", "T.stack([])", "T.stack(T.zeros(2))",
    "T.stack([T.zeros(2), T.zeros(3)])", "T.stack([T.zeros(2), T.zeros(2)], 2)", "T.hstack([])", "T.vstack([])", "T.dstack([])",
    "T.column_stack([])", "T.hstack([T.zeros(2), T.zeros(2, 2)])", "T.block_diag(T.zeros(2, 2, 2))", "T.block_diag(T.zeros(2), 1)",
    "P(T.zeros(3), (1,))", "P(T.zeros(3), (1, 1, 1, 1))", "P(T.zeros(3), (-2, -2))", "P(T.zeros(3), (-4, 5))", "P(T.zeros(3), 1)",
    "P(T.zeros(3), (1.0, 2))", "P(T.zeros(3), (1, 1), 'reflect')", "P(T.zeros(2, 3, 4, 5), (1, 1), 'reflect')",
    "P(T.zeros(2, 4), (4, 1), 'reflect')", "P(T.zeros(2, 3, 4), (1, 1, 3, 1), 'reflect')", "P(T.zeros(2, 3), (4, 1), 'circular')",
    "P(T.zeros(2, 3), (-3, -2), 'circular')", "P(T.zeros(2, 3), (1, 1), 'foo')", "P(T.zeros(2, 3), (1, 1), 'reflect', 1.0)",
    "P(T.zeros(2, 0), (1, 1), 'reflect')", "P(T.zeros(2, 0), (1, 1), 'replicate')", "P(T.zeros(2, 0), (1, 1), 'circular')",
    "P(T.zeros(2, 3, dtype=T.bool), (1, 1), 'reflect')",
]  # fmt: skip


@pytest.mark.torch
@pytest.mark.parametrize("call", REFUSED)
def test_same_errors(call: str) -> None:
    torch = pytest.importorskip("torch")
    found = []
    for T in (flambeau, torch):
        with pytest.raises(Exception) as e:
            eval(call, {"T": T, "P": T.nn.functional.pad, "__name__": "user"})
        found.append((e.type, str(e.value).split("\n")[0]))
    assert found[0] == found[1]


def test_error_names_the_shapes() -> None:
    with pytest.raises(
        RuntimeError, match=r"for tensor number 1 in the list\.\n  at .*\n  The shapes are \[2, 3\], \[2, 4\]\."
    ):
        flambeau.cat([flambeau.zeros(2, 3), flambeau.zeros(2, 4)])


def test_out() -> None:
    x = flambeau.ones(2, 2)
    out = flambeau.empty(0)
    assert flambeau.cat([x, x], out=out) is out and out.shape == (4, 2)
    assert flambeau.stack([x, x], out=flambeau.empty(2, 2, 2, dtype=flambeau.float64)).dtype is flambeau.float64


def test_legacy_empty_tensors_get_a_gradient() -> None:
    e, x = flambeau.zeros(0, requires_grad=True), flambeau.ones(2, 2, requires_grad=True)
    flambeau.cat([e, x], 1).sum().backward()
    assert e.grad.shape == (0,) and x.grad.tolist() == [[1, 1], [1, 1]]
    assert flambeau.cat([flambeau.zeros(0), flambeau.zeros(0)]).shape == (0,)
    assert flambeau.cat([flambeau.zeros(0, dtype=flambeau.float64), flambeau.ones(2)]).dtype is flambeau.float64


def test_empty() -> None:
    assert flambeau.block_diag().shape == (1, 0)
    assert F.nn.functional.pad(flambeau.zeros(1, 2, 0), (1, 1)).tolist() == [[[0, 0], [0, 0]]]
    assert F.nn.functional.pad(flambeau.zeros(0, 2, 3), (1, 1), mode="reflect").shape == (0, 2, 5)
    assert F.nn.functional.pad(flambeau.tensor(1.0), ()).shape == ()


def channels_last(*shape: int) -> Any:
    """An image as a convolution leaves it."""
    t = flambeau.rand(shape)
    n = len(shape)
    t._a = np.ascontiguousarray(t._a.transpose(0, *range(2, n), 1)).transpose(0, n - 1, *range(1, n - 1))
    return t


@pytest.mark.parametrize("spatial", [(4, 5), (2, 3, 4)])
def test_private_layout_is_kept(spatial: tuple[int, ...]) -> None:
    x, y = channels_last(2, 3, *spatial), channels_last(2, 2, *spatial)
    wide = (0, *range(2, 2 + len(spatial)), 1)
    joined = flambeau.cat([x, y], 1)
    assert joined._a.transpose(wide).flags.c_contiguous and joined.is_contiguous()
    padded = F.nn.functional.pad(x, (1, 1, 1, 1))
    assert padded._a.transpose(wide).flags.c_contiguous and padded.is_contiguous()
    np.testing.assert_array_equal(joined.numpy()[:, :3], x.numpy())


def test_mixed_layouts_give_the_default_one() -> None:
    x = channels_last(2, 3, 4, 5)
    assert flambeau.cat([x, flambeau.rand(2, 3, 4, 5)], 1).is_contiguous()
    assert flambeau.cat([flambeau.rand(3, 2).t(), flambeau.rand(3, 2).t()]).stride() == (3, 1)


def test_a_layout_that_users_see_is_kept() -> None:
    x = flambeau.rand(2, 3, 4, 5).contiguous(memory_format=flambeau.channels_last)
    assert flambeau.cat([x, x], 1).is_contiguous(memory_format=flambeau.channels_last)
