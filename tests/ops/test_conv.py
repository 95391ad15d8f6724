"""Convolutions: values, gradients of both orders, layouts, messages."""

from __future__ import annotations

import numpy as np
import pytest

from .harness import Case, OperatorTests, close, tensor


def nnf(T):
    return T.nn.functional


def conv(rank, **options):
    return lambda T, x, w, b=None: getattr(nnf(T), f"conv{rank}d")(x, w, b, **options)


def back(rank, **options):
    return lambda T, x, w, b=None: getattr(nnf(T), f"conv_transpose{rank}d")(x, w, b, **options)


def direct(x, w, b):
    """conv2d, stride 1, no padding, by its definition."""
    n, c, h, wd = x.shape
    o, _, kh, kw = w.shape
    out = np.zeros((n, o, h - kh + 1, wd - kw + 1))
    for i in range(out.shape[2]):
        for j in range(out.shape[3]):
            out[:, :, i, j] = np.einsum("nckl,ockl->no", x[:, :, i : i + kh, j : j + kw], w) + b
    return out


CASES = [
    Case("conv2d", conv(2), [(2, 3, 5, 4), (4, 3, 3, 2), (4,)], direct, dtypes=("float32", "float64", "bfloat16")),
    Case("conv1d", conv(1, stride=2, padding=1), [(2, 3, 7), (4, 3, 3), (4,)]),
    Case("conv1d_unbatched", conv(1), [(3, 7), (4, 3, 3), (4,)]),
    Case("conv2d_stride", conv(2, stride=(2, 1), padding=(1, 2), dilation=(1, 2)), [(2, 2, 6, 7), (3, 2, 3, 2)], tol=2),
    Case("conv2d_groups", conv(2, groups=2), [(1, 4, 4, 4), (6, 2, 3, 3), (6,)], tol=2),
    Case("conv2d_depthwise", conv(2, groups=3, padding=1), [(1, 3, 4, 4), (3, 1, 3, 3), (3,)]),
    Case("conv2d_1x1", conv(2), [(2, 3, 3, 3), (4, 3, 1, 1)]),
    Case("conv2d_same", conv(2, padding="same"), [(1, 2, 4, 5), (2, 2, 4, 3)], node=False, tol=2),
    Case("conv2d_valid", conv(2, padding="valid"), [(1, 2, 4, 4), (2, 2, 3, 3)]),
    Case("conv2d_unbatched", conv(2), [(2, 4, 4), (3, 2, 3, 3), (3,)]),
    Case("conv3d", conv(3, padding=1, stride=2), [(1, 2, 3, 4, 3), (2, 2, 2, 3, 2), (2,)], tol=2),
    Case("conv_transpose1d", back(1, stride=2, output_padding=1), [(2, 3, 4), (3, 2, 3), (2,)]),
    Case("conv_transpose2d", back(2, stride=2, padding=1, output_padding=1), [(2, 3, 3, 2), (3, 2, 3, 3), (2,)], tol=2),
    Case("conv_transpose2d_dilated", back(2, dilation=2, output_padding=1), [(1, 2, 3, 3), (2, 2, 2, 2)]),
    Case("conv_transpose2d_groups", back(2, groups=2, stride=(1, 2)), [(1, 4, 3, 3), (4, 1, 2, 3), (2,)], tol=2),
    Case("conv_transpose3d", back(3), [(1, 2, 2, 2, 3), (2, 2, 2, 2, 2), (2,)]),
    Case("conv_transpose_unbatched", back(2), [(2, 3, 3), (2, 2, 2, 2)]),
    Case("convolution", lambda T, x, w: T.convolution(x, w, None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1),
         [(1, 2, 3, 3), (2, 2, 2, 2)]),
    Case("conv_tbc", lambda T, x, w, b: T.conv_tbc(x, w, b, 1), [(5, 2, 3), (3, 3, 4), (4,)], node=False, tol=2),
    Case("conv2d_empty_batch", conv(2), [(0, 2, 4, 4), (3, 2, 3, 3), (3,)], layouts=False),
]  # fmt: skip


class TestConvolutions(OperatorTests):
    cases = CASES


def draw(*shape):
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


class TestPrivateLayout:
    """Results lie channels-last, and nobody can see it."""

    def pair(self):
        import flambeau as torch

        x, w = tensor(draw(2, 3, 5, 5), True), tensor(draw(4, 3, 3, 3), True)
        return torch, x, w, torch.conv2d(x, w)

    def test_strides(self):
        _, _, _, y = self.pair()
        assert y.is_contiguous()
        assert y.stride() == (36, 9, 3, 1)

    def test_what_follows(self):
        torch, x, w, y = self.pair()
        plain = np.ascontiguousarray(y._a)
        z = torch.conv2d(x, w)
        close(z.flatten(1).detach()._a, plain.reshape(2, -1), 1e-6)
        close(torch.conv2d(x, w)[1, :, 0].detach()._a, plain[1, :, 0], 1e-6)
        close(torch.conv2d(x, w).view(-1).detach()._a, plain.reshape(-1), 1e-6)
        close((torch.conv2d(x, w) * 2).reshape(2, -1).detach()._a, 2 * plain.reshape(2, -1), 1e-6)
        close(torch.conv2d(x, w).transpose(1, 2).detach()._a, plain.swapaxes(1, 2), 1e-6)

    def test_gradient_through_a_view(self):
        torch, x, w, y = self.pair()
        y.flatten(1)[:, ::2].sum().backward()
        x2, w2 = tensor(x._a, True), tensor(w._a, True)
        mask = np.zeros(36, np.float32)
        mask[::2] = 1
        (torch.conv2d(x2, w2) * tensor(mask.reshape(1, 4, 3, 3))).sum().backward()
        close(w.grad._a, w2.grad._a, 1e-5)
        close(x.grad._a, x2.grad._a, 1e-5)

    def test_in_place_on_the_result(self):
        torch, x, w, y = self.pair()
        before = y._a.copy()
        y.mul_(3.0)
        y.sum().backward()
        close(y._a, 3 * before, 1e-6)
        assert x.grad is not None

    def test_channels_last_of_the_users_own(self):
        torch, x, w, _ = self.pair()
        z = torch.conv2d(x.detach().contiguous(memory_format=torch.channels_last), w)
        assert z.stride() == (36, 1, 12, 4)
        assert z.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("x, w, options, phrase", [
    ((1, 4, 8, 8), (2, 3, 3, 3), {}, "Given groups=1, weight of size [2, 3, 3, 3], expected input[1, 4, 8, 8] to have 3 channels, but got 4"),
    ((4, 8), (2, 3, 3, 3), {}, "Expected 3D (unbatched) or 4D (batched) input to conv2d, but got input of size: [4, 8]"),
    ((1, 3, 2, 2), (2, 3, 3, 3), {}, "Kernel size can't be greater than actual input size"),
    ((1, 3, 8, 8), (2, 3, 3, 3), {"stride": 0}, "non-positive stride is not supported"),
    ((1, 3, 8, 8), (2, 3, 3, 3), {"padding": -1}, "negative padding is not supported"),
    ((1, 3, 8, 8), (2, 3, 3, 3), {"padding": "same", "stride": 2}, "padding='same' is not supported for strided convolutions"),
])  # fmt: skip
def test_messages(x, w, options, phrase):
    import flambeau as torch

    with pytest.raises(RuntimeError) as e:
        torch.conv2d(tensor(draw(*x)), tensor(draw(*w)), **options)
    assert phrase in str(e.value)


def test_mixed_dtypes():
    import flambeau as torch

    with pytest.raises(RuntimeError, match="expected scalar type Double but found Float"):
        torch.conv2d(tensor(draw(1, 3, 4, 4).astype(np.float64)), tensor(draw(2, 3, 3, 3)))
