"""flambeau.ops.views"""

from __future__ import annotations

import numpy as np
import pytest

import flambeau as ft

from .harness import Case, OperatorTests

A = [(2, 3, 4)]
ANY = ("float32", "float64", "int64", "bool", "bfloat16", "complex64")

CASES = [
    Case("view", lambda T, x: x.contiguous().view(6, 4), A, lambda x: x.reshape(6, 4), ANY),
    Case("view_minus_one", lambda T, x: x.contiguous().view(-1, 4), A, lambda x: x.reshape(-1, 4), ANY),
    Case("reshape", lambda T, x: T.reshape(x, (4, -1)), A, lambda x: x.reshape(4, -1), ANY),
    Case("reshape_copies", lambda T, x: x.contiguous().transpose(0, 2).reshape(8, 3), A, lambda x: x.T.reshape(8, 3), ANY),
    Case("flatten", lambda T, x: T.flatten(x, 1), A, lambda x: x.reshape(2, 12)),
    Case("unflatten", lambda T, x: x.contiguous().unflatten(-1, (2, -1)), A, lambda x: x.reshape(2, 3, 2, 2)),
    Case("ravel", lambda T, x: T.ravel(x), A, np.ravel),
    Case("transpose", lambda T, x: T.transpose(x, 0, -1), A, lambda x: x.swapaxes(0, -1), ANY),
    Case("swapaxes", lambda T, x: T.swapaxes(x, 0, 1), A, lambda x: x.swapaxes(0, 1)),
    Case("t", lambda T, x: x.t(), [(2, 3)], np.transpose),
    Case("t_vector", lambda T, x: x.t(), [(3,)], lambda x: x),
    Case("T", lambda T, x: x.T, [(2, 3)], np.transpose),
    Case("mT", lambda T, x: x.mT, A, lambda x: x.swapaxes(1, 2)),
    Case("H", lambda T, x: x.H, [(2, 3)], lambda x: x.conj().T, ("float32", "complex64")),
    Case("mH", lambda T, x: x.mH, A, lambda x: x.conj().swapaxes(1, 2), ("float32", "complex64")),
    Case("adjoint", lambda T, x: T.adjoint(x), A, lambda x: x.conj().swapaxes(1, 2), ("float32", "complex64")),
    Case("permute", lambda T, x: T.permute(x, (2, 0, 1)), A, lambda x: x.transpose(2, 0, 1), ANY),
    Case("movedim", lambda T, x: T.movedim(x, (0, 1), (-1, 0)), A, lambda x: np.moveaxis(x, (0, 1), (-1, 0))),
    Case("squeeze", lambda T, x: T.squeeze(x), [(2, 1, 3, 1)], np.squeeze),
    Case("squeeze_dim", lambda T, x: T.squeeze(x, 1), [(2, 1, 3, 1)], lambda x: x.squeeze(1)),
    Case("squeeze_dims", lambda T, x: T.squeeze(x, (1, 2)), [(2, 1, 3, 1)], lambda x: x.squeeze(1)),
    Case("unsqueeze", lambda T, x: T.unsqueeze(x, -2), [(2, 3)], lambda x: x[:, None]),
    Case("unsqueeze_scalar", lambda T, x: T.unsqueeze(x, 0), [()], lambda x: x[None]),
    Case("expand", lambda T, x: x.expand(2, -1, 4), [(3, 1)], lambda x: np.broadcast_to(x, (2, 3, 4)), ANY),
    Case("expand_scalar", lambda T, x: x.expand(2, 3), [()], lambda x: np.broadcast_to(x, (2, 3))),
    Case("expand_as", lambda T, x, y: x.expand_as(y), [(3, 1), (2, 3, 4)], lambda x, y: np.broadcast_to(x, y.shape)),
    Case("broadcast_to", lambda T, x: T.broadcast_to(x, (2, 3)), [(3,)], lambda x: np.broadcast_to(x, (2, 3))),
    Case("broadcast_tensors", lambda T, x, y: T.broadcast_tensors(x, y), [(3, 1), (4,)], np.broadcast_arrays),
    Case("select", lambda T, x: T.select(x, 1, -1), A, lambda x: x[:, -1], ANY),
    Case("narrow", lambda T, x: T.narrow(x, 1, 1, 2), A, lambda x: x[:, 1:3], ANY),
    Case("narrow_copy", lambda T, x: T.narrow_copy(x, 1, 1, 2), A, lambda x: x[:, 1:3]),
    Case("unbind", lambda T, x: T.unbind(x, 1), A, lambda x: tuple(x[:, i] for i in range(3))),
    Case("unbind_some", lambda T, x: x.unbind()[1], A, lambda x: x[1]),
    Case("split", lambda T, x: T.split(x, 2, 1), A, lambda x: (x[:, :2], x[:, 2:])),
    Case("unsafe_split", lambda T, x: T.unsafe_split(x, 2, 1), A, lambda x: (x[:, :2], x[:, 2:])),
    Case("unsafe_split_sizes", lambda T, x: T.unsafe_split_with_sizes(x, [1, 0, 2], 1), A, lambda x: (x[:, :1], x[:, :0], x[:, 1:])),
    Case("unsafe_chunk", lambda T, x: T.unsafe_chunk(x, 2, 2), A, lambda x: tuple(np.array_split(x, 2, 2)), node=False),
    Case("split_sizes", lambda T, x: T.split(x, [1, 0, 2], 1), A, lambda x: (x[:, :1], x[:, :0], x[:, 1:])),
    Case("chunk", lambda T, x: T.chunk(x, 3, 2), A, lambda x: (x[..., :2], x[..., 2:])),
    Case("tensor_split", lambda T, x: T.tensor_split(x, 3, 2), A, lambda x: tuple(np.array_split(x, 3, 2))),
    Case("tensor_split_at", lambda T, x: T.tensor_split(x, (1, 3), 2), A, lambda x: tuple(np.split(x, (1, 3), 2))),
    Case("hsplit", lambda T, x: T.hsplit(x, 3), A, lambda x: tuple(np.hsplit(x, 3))),
    Case("vsplit", lambda T, x: T.vsplit(x, [1]), A, lambda x: tuple(np.vsplit(x, [1]))),
    Case("dsplit", lambda T, x: T.dsplit(x, 2), A, lambda x: tuple(np.dsplit(x, 2))),
    Case("diagonal", lambda T, x: T.diagonal(x, 1, 1, 2), A, lambda x: x.diagonal(1, 1, 2), ANY),
    Case("diagonal_low", lambda T, x: T.diagonal(x, -1, 0, 2), A, lambda x: x.diagonal(-1, 0, 2)),
    Case("diag_embed", lambda T, x: T.diag_embed(x, 1), [(2, 3)], lambda x: np.stack([np.diag(r, 1) for r in x])),
    Case("diag_embed_dims", lambda T, x: T.diag_embed(x, 0, 0, 2), [(2, 3)],
         lambda x: np.stack([np.diag(r) for r in x], 1)),
    Case("diag_vector", lambda T, x: T.diag(x, -1), [(3,)], lambda x: np.diag(x, -1)),
    Case("diag_matrix", lambda T, x: T.diag(x, 1), [(3, 4)], lambda x: np.diag(x, 1)),
    Case("diagflat", lambda T, x: T.diagflat(x), [(2, 2)], np.diagflat, node=False),
    Case("unfold", lambda T, x: x.unfold(2, 2, 1), A,
         lambda x: np.lib.stride_tricks.sliding_window_view(x, 2, 2)),
    Case("unfold_step", lambda T, x: x.unfold(0, 3, 2), [(8,)],
         lambda x: np.lib.stride_tricks.sliding_window_view(x, 3, 0)[::2]),
    Case("as_strided", lambda T, x: T.as_strided(x.contiguous(), (2, 3), (5, 1), 2), A,
         lambda x: x.reshape(-1)[[[2, 3, 4], [7, 8, 9]]]),
    Case("as_strided_overlap", lambda T, x: T.as_strided(x.contiguous(), (3, 3), (1, 1)), [(5,)],
         lambda x: np.lib.stride_tricks.sliding_window_view(x, 3)),
    Case("view_as_complex", lambda T, x: T.view_as_complex(x.contiguous()), [(3, 2)], lambda x: x[:, 0] + 1j * x[:, 1], grad=False),
    Case("view_as_real", lambda T, x: T.view_as_real(T.view_as_complex(x.contiguous()) * 2), [(3, 2)], lambda x: 2 * x,
         node=False),
    Case("real", lambda T, x: T.real(T.view_as_complex(x.contiguous())), [(3, 2)], lambda x: x[:, 0]),
    Case("imag", lambda T, x: T.imag(T.view_as_complex(x.contiguous())), [(3, 2)], lambda x: x[:, 1]),
    Case("atleast_1d", lambda T, x: T.atleast_1d(x), [()], np.atleast_1d, node=False),
    Case("atleast_2d", lambda T, x: T.atleast_2d(x), [(3,)], np.atleast_2d),
    Case("atleast_3d", lambda T, x, y: T.atleast_3d(x, y), [(3,), (2, 2)], lambda x, y: (np.atleast_3d(x), np.atleast_3d(y))),
    Case("flip", lambda T, x: T.flip(x, (0, 2)), A, lambda x: np.flip(x, (0, 2)), ANY),
    Case("fliplr", lambda T, x: T.fliplr(x), A, np.fliplr),
    Case("flipud", lambda T, x: T.flipud(x), A, np.flipud),
    Case("rot90", lambda T, x: T.rot90(x, 3, (1, 2)), A, lambda x: np.rot90(x, 3, (1, 2))),
    Case("roll", lambda T, x: T.roll(x, (1, -2), (0, 2)), A, lambda x: np.roll(x, (1, -2), (0, 2)), ANY),
    Case("roll_flat", lambda T, x: T.roll(x, 5), A, lambda x: np.roll(x, 5)),
    Case("repeat", lambda T, x: x.repeat(2, 1, 3), [(2, 3)], lambda x: np.tile(x, (2, 1, 3)), ANY),
    Case("tile", lambda T, x: T.tile(x, (2,)), A, lambda x: np.tile(x, 2)),
    Case("repeat_interleave", lambda T, x: T.repeat_interleave(x, 2, 1), A, lambda x: np.repeat(x, 2, 1)),
    Case("repeat_interleave_flat", lambda T, x: T.repeat_interleave(x, 2), [(2, 3)], lambda x: np.repeat(x, 2), node=False),
    Case("repeat_interleave_each", lambda T, x, n: T.repeat_interleave(x, n, 0), lambda r: [r.normal(size=(3, 2)), np.array([2, 0, 1])],
         lambda x, n: np.repeat(x, n, 0)),
    Case("take_along_dim", lambda T, x, i: T.take_along_dim(x, i, 1), lambda r: [r.normal(size=(2, 3, 4)), r.integers(0, 3, (2, 2, 1))],
         lambda x, i: np.take_along_axis(x, np.broadcast_to(i, (2, 2, 4)), 1)),
]  # fmt: skip


class TestViews(OperatorTests):
    cases = CASES


VIEWS = {
    "view": lambda x: x.view(6, 4),
    "reshape": lambda x: x.reshape(6, 4),
    "transpose": lambda x: x.transpose(0, 1),
    "permute": lambda x: x.permute(2, 0, 1),
    "squeeze": lambda x: x.squeeze(),
    "unsqueeze": lambda x: x.unsqueeze(1),
    "select": lambda x: x.select(1, 2),
    "narrow": lambda x: x.narrow(1, 1, 2),
    "int": lambda x: x[1],
    "slice": lambda x: x[:, 1:],
    "step": lambda x: x[..., ::2],
    "none": lambda x: x[:, None],
    "mixed": lambda x: x[1, :, None, 2:],
    "diagonal": lambda x: x.diagonal(0, 1, 2),
    "as_strided": lambda x: x.as_strided((2, 2), (12, 1), 3),
    "unfold": lambda x: x.unfold(2, 2, 2),
    "real": lambda x: x.real,
    "twice": lambda x: x[1].t()[2:],
}


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_shares_memory_and_version(name: str) -> None:
    x = ft.arange(24.0).reshape(2, 3, 4).clone()
    v = VIEWS[name](x)
    version = x._version
    v.zero_()
    assert (x.numpy() == 0).sum() >= v.numel()
    assert x._version == v._version == version + 1


@pytest.mark.torch
@pytest.mark.parametrize("name", VIEWS)
def test_strides_and_offset_are_torchs(name: str) -> None:
    torch = pytest.importorskip("torch")
    u = VIEWS[name](torch.arange(24.0).reshape(2, 3, 4).clone())
    v = VIEWS[name](ft.arange(24.0).reshape(2, 3, 4).clone())

    def layout(t: object) -> object:
        steps = [s for n, s in zip(t.shape, t.stride()) if n > 1]
        return tuple(t.shape), steps, t.storage_offset(), t.is_contiguous()

    assert layout(v) == layout(u)
    assert v.tolist() == u.tolist()


@pytest.mark.torch
@pytest.mark.parametrize("name", [n for n in VIEWS if n not in ("unfold",)])
def test_in_place_on_a_view_gives_torchs_gradient(name: str) -> None:
    torch = pytest.importorskip("torch")

    def run(T: object) -> tuple[object, object]:
        x = T.arange(24.0).reshape(2, 3, 4).clone().requires_grad_()
        y = x * 1.5
        v = VIEWS[name](y)
        v.mul_(3.0)
        w = VIEWS[name](y)
        ((y * y).sum() + (v * w).sum()).backward()
        return y.detach().tolist(), x.grad.tolist()

    assert run(ft) == run(torch)


def test_metadata_in_place() -> None:
    x = ft.arange(6.0).reshape(1, 2, 3).clone()
    x.squeeze_(0)
    assert x.shape == (2, 3)
    x.t_()
    assert x.shape == (3, 2) and x.stride() == (1, 3)
    x.unsqueeze_(-1).transpose_(0, 1)
    assert x.shape == (2, 3, 1)
    y = ft.ones(2, 3, requires_grad=True)
    z = y * 2
    z.t_()
    (z * ft.arange(6.0).reshape(3, 2)).sum().backward()
    assert y.grad.tolist() == [[0, 4, 8], [2, 6, 10]]


ERRORS = {
    "view": (lambda x: x.view(5), RuntimeError, "shape '[5]' is invalid for input of size 6"),
    "view_strides": (lambda x: x.t().view(6), RuntimeError, "view size is not compatible with input tensor's size and stride"),
    "two_unknown": (lambda x: x.view(-1, -1), RuntimeError, "only one dimension can be inferred"),
    "negative": (lambda x: x.view(-2), RuntimeError, "invalid shape dimension -2 at index 0 of shape [-2]"),
    "ambiguous": (lambda x: ft.empty(0).reshape(-1, 0), RuntimeError, "cannot reshape tensor of 0 elements into shape [-1, 0]"),
    "permute": (lambda x: x.permute(0, 0), RuntimeError, "permute(): duplicate dims are not allowed."),
    "transpose": (lambda x: x.transpose(0, 5), IndexError, "Dimension out of range (expected to be in range of [-2, 1], but got 5)"),
    "expand": (lambda x: x.expand(4, 3), RuntimeError, "must match the existing size (2) at non-singleton dimension 0"),
    "expand_fewer": (lambda x: x.expand(3), RuntimeError, "must be greater or equal to the number of dimensions in the tensor (2)"),
    "split": (lambda x: x.split([1, 2]), RuntimeError, "split_with_sizes expects split_sizes to sum exactly to 2"),
    "narrow": (lambda x: x.narrow(0, 1, 2), RuntimeError, "start (1) + length (2) exceeds dimension size (2)."),
    "select": (lambda x: x.select(0, 5), IndexError, "select(): index 5 out of range for tensor of size [2, 3] at dimension 0"),
    "unfold": (lambda x: x.unfold(0, 3, 1), RuntimeError, "maximum size for tensor at dimension 0 is 2 but size is 3"),
    "t": (lambda x: x.unsqueeze(0).t(), RuntimeError, "t() expects a tensor with <= 2 dimensions, but self is 3D"),
    "imag": (lambda x: x.imag, RuntimeError, "imag is not implemented for tensors with non-complex dtypes."),
    "as_strided": (lambda x: x.as_strided((9,), (1,)), RuntimeError, "are out of bounds for storage of size 24"),
    "expanded_write": (lambda x: x[:1].expand(2, 3).mul_(2), RuntimeError, "more than one element of the written-to tensor"),
    "multi": (lambda x: (x.clone().requires_grad_() * 1).unbind()[0].zero_(), RuntimeError,
              "This view is the output of a function that returns multiple views"),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name: str) -> None:
    fn, cls, text = ERRORS[name]
    with pytest.raises(cls) as e:
        fn(ft.zeros(2, 3))
    assert text in str(e.value)
    assert "test_views.py" in str(e.value)


def test_private_image_layout_is_relaid_before_it_is_viewed() -> None:
    from flambeau.core.tensor import wrap

    values = np.arange(48.0).reshape(2, 3, 4, 2)
    t = wrap(np.ascontiguousarray(values.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2))
    assert t.is_contiguous()
    v = t.view(2, -1)
    assert v.tolist() == values.reshape(2, -1).tolist()
    v.zero_()
    assert not t.numpy().any()


def test_view_as_another_dtype() -> None:
    x = ft.ones(2, 2)
    assert x.view(ft.int32).tolist() == [[0x3F800000] * 2] * 2
    assert x.view(ft.uint8).shape == (2, 8)
    with pytest.raises(RuntimeError, match="must be divisible by 2 to view"):
        ft.ones(3).view(ft.float64)


def test_views_of_memory_in_another_order() -> None:
    """Memory that is dense, but in neither C's nor Fortran's order: what lies in it is found through its own strides."""
    x = ft.arange(24.0).reshape(2, 3, 4).permute(2, 0, 1) + 0
    assert x.stride() == (1, 12, 4)
    assert x.unsqueeze(2).expand(4, 2, 5, 3)[:, :, 3].tolist() == x.tolist()
    assert x.as_strided((2, 2), (12, 1), 1).tolist() == [[1, 2], [13, 14]]
