"""Matrix products of NumPy arrays: oneDNN where it is faster, NumPy's BLAS otherwise."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from flambeau.kernels.onednn import library

# Multiply-adds from which oneDNN is faster than NumPy's OpenBLAS (measured on two cores with AVX-512): OpenBLAS
# costs less to call; for one matrix it runs well on one core up to this size, for a batch it never uses two.
ONE_MATRIX, BATCH = 500_000, 250_000


def matmul(a: np.ndarray, b: np.ndarray, bias: np.ndarray | None = None, out: np.ndarray | None = None,
           activation: str | None = None, accumulate: bool = False) -> np.ndarray:
    """`a @ b` of arrays with two or more dimensions, whose batch dimensions broadcast.

    `bias` (columns,) is added to each row, `activation` ("relu") applied to that; with `accumulate` the
    product is added to `out`. Transposed operands are read where they lie. Half precision is summed in float32.

    >>> matmul(np.ones((2, 3)), np.ones((3, 2)), bias=np.ones(2))
    array([[4., 4.],
           [4., 4.]])
    """
    dtype = a.dtype
    itemsize = dtype.itemsize
    if b.ndim > 2 and out is None and (result := _as_one_product(a, b, bias, activation)) is not None:
        return result
    if dtype.kind == "f" and itemsize == 4 and b.dtype == dtype:
        rows, inner = a.shape[-2:]
        columns = b.shape[-1]
        work = rows * inner * columns
        if a.ndim == 2 and b.ndim == 2:
            worthwhile = work >= ONE_MATRIX and rows != 1 and columns != 1
        else:
            work *= _product(np.broadcast_shapes(a.shape[:-2], b.shape[:-2]))
            worthwhile = work >= BATCH
        if worthwhile and work and library.available():
            result = _by_onednn(a, b, bias, out, accumulate)
            if result is not None:
                return _activate(result, activation)
    elif itemsize == 2 and dtype.kind in "fV" and dtype == b.dtype:
        return _activate(_half(a, b, bias, out, accumulate), activation)
    elif dtype.kind == "b":
        raise NotImplementedError("\"addmm_impl_cpu_\" not implemented for 'Bool'")
    return _activate(_by_numpy(a, b, bias, out, accumulate), activation)


def linear(x: np.ndarray, w: np.ndarray, b: np.ndarray | None = None) -> np.ndarray:
    """`x @ w.T + b` for x (..., in), w (out, in), b (out,): a layer's product, leading dimensions flattened.

    >>> linear(np.ones((2, 5, 3)), np.ones((4, 3)), np.zeros(4)).shape
    (2, 5, 4)
    """
    if x.ndim == 2:
        return matmul(x, w.T, b)
    rows = _product(x.shape[:-1])
    return matmul(x.reshape(rows, x.shape[-1]), w.T, b).reshape(*x.shape[:-1], w.shape[0])


def _as_one_product(a, b, bias, activation) -> np.ndarray | None:
    """A batch of products of which one side is one matrix, expanded over the batch, as one product; None if it isn't."""
    if a.ndim != b.ndim or not a.size or not b.size:
        return None
    if not any(b.strides[:-2]) and a.flags.c_contiguous and a.shape[:-2] == b.shape[:-2]:
        rows = a.reshape(-1, a.shape[-1])
        return matmul(rows, b[(0,) * (b.ndim - 2)], bias, activation=activation).reshape(*a.shape[:-1], b.shape[-1])
    if b.shape[-1] == 1 < a.shape[-2] and not any(a.strides[:-2]):     # columns: (a b)^T = b^T a^T
        out = matmul(b.swapaxes(-1, -2), a.swapaxes(-1, -2)).swapaxes(-1, -2)
        return _activate(out if bias is None else np.add(out, bias, out=out), activation)
    return None


def multiplier(b: np.ndarray, rows: int, accumulate: bool = False) -> Callable[[np.ndarray, np.ndarray], object]:
    """A function of a (rows, inner) and out that writes `a @ b` to `out`, or adds it: for many products with one b.

    a and out are C-contiguous; b must not change meanwhile, since a copy of it in a better layout may be used.

    >>> out = np.zeros((2, 2))
    >>> _ = multiplier(np.eye(2), 2)(np.ones((2, 2)), out)
    >>> out
    array([[1., 1.],
           [1., 1.]])
    """
    if b.dtype == np.float32 and rows > 1 and b.size * rows >= ONE_MATRIX and library.available():
        from flambeau.kernels.onednn.matmul import packed

        if (function := packed(b, rows, accumulate)) is not None:
            return function
    return lambda a, out: matmul(a, b, out=out, accumulate=accumulate)


def _product(shape) -> int:
    result = 1
    for n in shape:
        result *= n
    return result


def _result_shape(a, b) -> tuple[int, ...]:
    return (*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1])


def _by_onednn(a, b, bias, out, accumulate):
    from flambeau.kernels.onednn.matmul import matmul as run

    if out is None:
        if a.shape[-1] != b.shape[-2]:
            return None     # NumPy words the error
        out = np.empty((a.shape[-2], b.shape[-1]) if a.ndim == b.ndim == 2 else _result_shape(a, b), a.dtype)
    return out if run(a, b, bias, out, accumulate) else None


def _by_numpy(a, b, bias, out, accumulate):
    if accumulate:
        out += np.matmul(a, b)
    else:
        out = np.matmul(a, b, out=out)
    if bias is not None:
        out += bias
    return out


def _half(a, b, bias, out, accumulate):
    """The product of float16 or bfloat16 arrays, which NumPy multiplies slowly and sums in half precision."""
    if a.size and b.size and library.available() and a.dtype in library.data_types():
        result = _by_onednn(a, b, bias, out, accumulate)
        if result is not None:
            return result
    product = matmul(a.astype(np.float32), b.astype(np.float32))
    if bias is not None:
        product += bias
    if out is None:
        return product.astype(a.dtype)
    if accumulate:
        product += out
    out[...] = product
    return out


def _activate(x, activation):
    # Not oneDNN's fused relu: that turns NaN into 0.
    if activation is None:
        return x
    if activation != "relu":
        raise NotImplementedError(f"matmul with activation={activation!r}")
    return np.maximum(x, 0, out=x)
