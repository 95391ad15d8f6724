"""Dropout: masks as PyTorch draws them, derivatives, evaluation."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

import flambeau
import flambeau.nn.functional as F

FORMS = {
    "dropout": ((4, 5), (3, 2, 4), (0,), ()),
    "dropout1d": ((4, 5), (3, 2, 4)),
    "dropout2d": ((2, 3, 4, 5), (3, 2, 4)),
    "dropout3d": ((2, 3, 2, 2, 2), (3, 2, 2, 2)),
    "alpha_dropout": ((4, 5), (60,)),
    "feature_alpha_dropout": ((4, 5), (3, 4, 2)),
}


@pytest.mark.torch
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("name", FORMS)
def test_same_seed_same_mask(name: str, dtype: str) -> None:
    torch = pytest.importorskip("torch")
    for shape in FORMS[name]:
        for p in (0.0, 0.3, 1.0):
            for inplace in (False, True):
                results = []
                for T in (flambeau, torch):
                    T.manual_seed(4)
                    x = (T.arange(int(np.prod(shape)), dtype=T.float64) / 8 - 1).reshape(shape).to(getattr(T, dtype))
                    x.requires_grad_()
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore")
                        y = getattr(T.nn.functional, name)(x * 1, p, True, inplace)
                    (y * y).sum().backward()
                    results.append(
                        (
                            y.detach().double().numpy(),
                            x.grad.double().numpy(),
                            y.grad_fn.name() if name == "dropout" else "",
                        )
                    )
                for a, b in zip(*results):
                    np.testing.assert_array_equal(a, b)


@pytest.mark.torch
def test_layouts() -> None:
    """Masks are drawn in the order of memory, or in C order where flambeau chose the layout itself."""
    torch = pytest.importorskip("torch")
    results = []
    for T in (flambeau, torch):
        T.manual_seed(4)
        results.append(T.nn.functional.dropout(T.ones(3, 4, 5).permute(2, 0, 1), 0.4).numpy())
    np.testing.assert_array_equal(*results)
    image = flambeau.ones(2, 3, 4, 5)
    relaid = flambeau.ones(2, 3, 4, 5)
    relaid._a = np.ascontiguousarray(image._a.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    flambeau.manual_seed(4)
    want = F.dropout(image, 0.4).numpy()
    flambeau.manual_seed(4)
    np.testing.assert_array_equal(F.dropout(relaid, 0.4).numpy(), want)


@pytest.mark.torch
def test_top_level_functions() -> None:
    torch = pytest.importorskip("torch")
    for name in ("dropout", "alpha_dropout", "feature_dropout", "feature_alpha_dropout"):
        for suffix in ("", "_"):
            results = []
            for T in (flambeau, torch):
                T.manual_seed(2)
                x = T.ones(4, 3, 2)
                y = getattr(T, name + suffix)(x, 0.5, True)
                assert (y is x) == bool(suffix)
                results.append(y.numpy())
            np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("name", FORMS)
def test_evaluation_is_the_input_itself(name: str) -> None:
    x = flambeau.ones(FORMS[name][0])
    f: Any = getattr(F, name)
    assert f(x, 0.5, False) is x and f(x, 0.5, False, True) is x and f(x, 0.0, True) is x


def test_statistics() -> None:
    flambeau.manual_seed(0)
    y = F.dropout(flambeau.ones(20000), 0.25)
    assert set(y.unique().tolist()) == {0.0, np.float32(1) / np.float32(0.75)}
    assert abs(y.mean().item() - 1) < 0.02
    z = F.alpha_dropout(flambeau.randn(20000), 0.3, True)
    assert abs(z.mean().item()) < 0.05 and abs(z.var().item() - 1) < 0.05
    channels = F.dropout2d(flambeau.ones(8, 8, 3, 3), 0.5)
    assert channels.amax((2, 3)).equal(channels.amin((2, 3)))


def test_second_derivative() -> None:
    x = flambeau.tensor([1.0, 2.0, 3.0, 4.0], requires_grad=True)
    flambeau.manual_seed(1)
    y = F.dropout(x, 0.5)
    mask = (y / x).detach()
    (g,) = flambeau.autograd.grad((y**3).sum(), x, create_graph=True)
    (h,) = flambeau.autograd.grad(g.sum(), x)
    np.testing.assert_allclose(h.numpy(), (6 * x.detach() * mask**3).numpy(), rtol=1e-5)


def test_errors() -> None:
    x = flambeau.ones(3)
    for p in (-0.1, 1.5):
        with pytest.raises(ValueError, match="dropout probability has to be between 0 and 1, but got"):
            F.dropout(x, p)
    with pytest.raises(RuntimeError, match="dropout probability has to be between 0 and 1, but got 2"):
        flambeau.dropout(x, 2.0, True)
    with pytest.raises(RuntimeError, match="Feature dropout requires at least 2 dimensions in the input"):
        flambeau.feature_dropout(x, 0.5, True)
    with pytest.raises(RuntimeError, match="dropout1d: Expected 2D or 3D input, but received a 1D input"):
        F.dropout1d(x)
    with pytest.raises(RuntimeError, match="result type Float can't be cast to the desired output type Long"):
        F.dropout(flambeau.ones(3, dtype=flambeau.int64))
    with pytest.warns(UserWarning, match="dropout2d: Received a 2-D input"):
        F.dropout2d(flambeau.ones(2, 2))
    with pytest.warns(UserWarning, match="assuming that channel-wise 1D dropout"):
        F.dropout2d(flambeau.ones(2, 2, 2))
    with pytest.raises(RuntimeError, match="a leaf Variable that requires grad"):
        F.dropout(flambeau.ones(2, requires_grad=True), 0.5, True, True)
