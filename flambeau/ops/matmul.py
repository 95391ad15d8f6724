"""Products of matrices and vectors.

Products read transposed operands where they lie, so the gradients ``g @ w`` and ``g^T @ x`` cost no copies.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from ..autograd.primitive import primitive
from ..core.dtypes import C_NAMES, SCALAR_NAMES
from ..core.errors import error
from ..core.modes import mode
from ..core.tensor import Tensor, new_tensor
from ..kernels import matmul as kernels
from ..kernels import reduce as R
from .arithmetic import both
from .dims import wrap_dim
from .public import become, public, publish, write_out
from .takes import takes

ndarray = np.ndarray
product, linear_kernel = kernels.matmul, kernels.linear


def _wrap(a: Any) -> Tensor:
    t = new_tensor(Tensor)
    t._a = a if a.__class__ is ndarray else np.asarray(a)
    t._grad_fn = None
    t._rg = False
    return t


# ---- building blocks ------------------------------------------------------------------------------------------------
# a^H: a view that no user sees, so without a view's bookkeeping
@primitive("adjoint_", node="TransposeBackward0", vjp={"a": lambda g: adjoint(g)}, jvp="linear", batch={})
def _adjoint(a: Any, /) -> Any:
    a = a.swapaxes(-1, -2)
    return a.conj() if a.dtype.kind == "c" else a


def adjoint(a: Tensor) -> Tensor:
    """The conjugate transpose of the last two dimensions."""
    if mode() is False and a._a.dtype.kind != "c":
        return _wrap(a._a.swapaxes(-1, -2))
    return _adjoint(a)


def conj(t: Tensor) -> Tensor:
    return t if t._a.dtype.kind != "c" else t.conj()


def multiply(a: Tensor, b: Tensor) -> Tensor:
    """``a @ b`` of two or more dimensions, for derivative rules."""
    if mode() is False:
        return _wrap(product(a._a, b._a))
    return _mm(a, b) if a._a.ndim == 2 and b._a.ndim == 2 else _bmm(a, b)


def rows_sum(g: Tensor) -> Tensor:
    """The sum over all dimensions but the last."""
    if mode() is False:
        a = g._a
        if a.size < R.SMALL and a.dtype.kind != "V":
            return _wrap(np.add.reduce(a, tuple(range(a.ndim - 1))) if a.ndim != 2 else np.add.reduce(a, 0))
        return _wrap(R.reduce("sum", a, tuple(range(a.ndim - 1)), dtype=a.dtype))
    return g.sum(tuple(range(g._a.ndim - 1)))


def _product_batch(info: Any, a: Tensor, b: Tensor) -> Tensor:
    """Of matrices or batches of them, some with the batch of vmap before them."""
    if b._a.ndim == 2 or a._a.ndim == b._a.ndim and info.has("a") and info.has("b"):
        return _bmm(a, b)  # one matrix for all, or all alike
    return _bmm(*info.aligned(a=a, b=b))


def _mv_batch(info: Any, a: Tensor, v: Tensor) -> Tensor:
    if not info.has("v"):
        return matmul(a, v)
    return _bmm(a, v.unsqueeze(-1)).squeeze(-1) if info.has("a") else _mm(v, _transposed(a))


def _dot_batch(info: Any, a: Tensor, b: Tensor) -> Tensor:
    if not info.has("b"):
        return _mv(a, b)
    return _bmm(a.unsqueeze(1), b.unsqueeze(2)).reshape(info.size) if info.has("a") else _mv(b, a)


@primitive("mm", node="MmBackward0", jvp="each", batch=_product_batch,
           vjp={"a": lambda g, b: multiply(g, adjoint(b)), "b": lambda g, a: multiply(adjoint(a), g)})  # fmt: skip
def _mm(a: Any, b: Any, /) -> Any:
    return product(a, b)


def _to_shape(g: Tensor, shape: Any) -> Tensor:
    return g if g._a.shape == shape else g.sum_to_size(shape)


@primitive("bmm", node="BmmBackward0", jvp="each", batch=_product_batch, vjp={
    "a": lambda g, b, a_shape: _to_shape(multiply(g, adjoint(b)), a_shape),
    "b": lambda g, a, b_shape: _to_shape(_by_columns(a, g, b_shape), b_shape),
})  # fmt: skip
def _bmm(a: Any, b: Any, /) -> Any:
    return product(a, b)


def _by_columns(a: Tensor, g: Tensor, b_shape: tuple[int, ...]) -> Tensor:
    """a^H @ g, in one product where ``b`` was one matrix for all of the batch."""
    if len(b_shape) == 2 and mode() is False and a._a.ndim == g._a.ndim:
        x, y = a._a, g._a
        rows = prod(x.shape[:-1])
        left = x.reshape(rows, x.shape[-1]).T
        return _wrap(product(left.conj() if left.dtype.kind == "c" else left, y.reshape(rows, y.shape[-1])))
    return multiply(adjoint(a), g)


@primitive("mv", node="MvBackward0", jvp="each", batch=_mv_batch,
           vjp={"a": lambda g, v: outer_product(g, conj(v)), "v": lambda g, a: _mv(adjoint(a), g)})  # fmt: skip
def _mv(a: Any, v: Any, /) -> Any:
    return product(a, v[:, None])[:, 0]


@primitive("dot", node="DotBackward0", jvp="each", batch=_dot_batch,
           vjp={"a": lambda g, b: g * conj(b), "b": lambda g, a: g * conj(a)})  # fmt: skip
def _dot(a: Any, b: Any, /) -> Any:
    if a.dtype.kind == "V" or a.dtype == np.float16:
        return np.dot(a.astype(np.float32), b.astype(np.float32)).astype(a.dtype)
    return np.dot(a, b)


@primitive("vdot", node="VdotBackward0", jvp="each", batch=lambda info, a, b: _dot_batch(info, conj(a), b),
           vjp={"a": lambda g, b: conj(g) * b, "b": lambda g, a: g * a})  # fmt: skip
def _vdot(a: Any, b: Any, /) -> Any:
    return np.vdot(a, b) if a.dtype.kind == "c" else _dot.kernel(a, b)


@primitive("outer", node="MulBackward0", jvp="each", batch=lambda info, a, b: a.unsqueeze(-1) * b.unsqueeze(-2),
           vjp={"a": lambda g, b: _mv(g, conj(b)), "b": lambda g, a: _mv(_transposed(g), conj(a))})  # fmt: skip
def outer_product(a: Any, b: Any, /) -> Any:
    return np.multiply(a[:, None], b)


@primitive("transposed_", node="TransposeBackward0", vjp={"a": lambda g: _transposed(g)}, jvp="linear", batch={})
def _transposed(a: Any, /) -> Any:
    return a.swapaxes(-1, -2)


# ---- checks ---------------------------------------------------------------------------------------------------------
def _shape_text(a: Tensor) -> str:
    return "x".join(map(str, a._a.shape))


def _same_dtype(a: Tensor, b: Tensor, phrase: str = "expected m1 and m2 to have the same dtype, but got: {} != {}") -> None:
    if a._a.dtype != b._a.dtype:
        names = C_NAMES if "m1 and m2" in phrase or "Input dtypes" in phrase else SCALAR_NAMES
        raise error(
            RuntimeError, phrase.format(names[a.dtype], names[b.dtype]),
            hint=f"The dtypes are {a.dtype} and {b.dtype}: convert one with .to().",
        )


def _check_mm(a: Tensor, b: Tensor, first: str = "mat1", second: str = "mat2") -> None:
    if a._a.ndim == 2 and b._a.ndim == 2 and a._a.shape[1] != b._a.shape[0]:
        raise error(
            RuntimeError, f"{first} and {second} shapes cannot be multiplied ({_shape_text(a)} and {_shape_text(b)})",
            hint=f"The second dimension of the first ({a._a.shape[1]}) must be the first of the second ({b._a.shape[0]}).",
        )
    _same_dtype(a, b)


def _tensor(name: str, which: str, position: int, t: Any) -> None:
    if not isinstance(t, Tensor):
        raise error(TypeError, f"{name}(): argument '{which}' (position {position}) must be Tensor, not {type(t).__name__}")


def _out(name: str, r: Tensor, out: Tensor | None) -> Tensor:
    if out is not None:
        write_out(name, out, r)
        return out
    return r


# ---- products -------------------------------------------------------------------------------------------------------
def mm(input: Tensor, mat2: Tensor, *, out: Tensor | None = None) -> Tensor:
    """The product of two matrices, (n, k) @ (k, m).

    >>> import flambeau as torch
    >>> torch.mm(torch.ones(2, 3), torch.ones(3, 2))
    tensor([[3., 3.],
            [3., 3.]])
    """
    _tensor("mm", "mat2", 2, mat2)
    for which, t in (("self", input), ("mat2", mat2)):
        if t._a.ndim != 2:
            raise error(RuntimeError, f"{which} must be a matrix")
    _check_mm(input, mat2)
    r = _mm(input, mat2)
    return r if out is None else _out("mm", r, out)


both(mm, "mm")


@public(out=True)
def bmm(input: Tensor, mat2: Tensor) -> Tensor:
    """Matrix products of a batch: (b, n, k) @ (b, k, m)."""
    a, b = input._a, mat2._a
    for which, t in (("batch1", input), ("batch2", mat2)):
        if t._a.ndim != 3:
            raise error(RuntimeError, f"{which} must be a 3D tensor")
    if b.shape[0] != a.shape[0] or b.shape[1] != a.shape[2]:
        raise error(
            RuntimeError,
            f"Expected size for first two dimensions of batch2 tensor to be: [{a.shape[0]}, {a.shape[2]}] but got: "
            f"[{b.shape[0]}, {b.shape[1]}].",
        )
    _same_dtype(input, mat2, "expected scalar type {} but found {}")
    return _bmm(input, mat2)


def matmul(input: Tensor, other: Tensor, *, out: Tensor | None = None) -> Tensor:
    """The matrix product ``input @ other``: of vectors, matrices and batches of matrices, which broadcast.

    >>> import flambeau as torch
    >>> torch.matmul(torch.ones(4, 2, 3), torch.ones(3)).shape
    torch.Size([4, 2])
    """
    try:
        a, b = input._a, other._a
    except AttributeError:
        _tensor("matmul", "input", 1, input)
        _tensor("matmul", "other", 2, other)
        raise
    if a.ndim == 2 and b.ndim == 2 and a.shape[1] == b.shape[0] and a.dtype is b.dtype:
        r = _mm(input, other)
    else:
        r = _matmul_general(input, other)
    return r if out is None else _out("matmul", r, out)


def _matmul_general(input: Tensor, other: Tensor) -> Tensor:
    a, b = input._a, other._a
    if not a.ndim or not b.ndim:
        raise error(
            RuntimeError,
            f"both arguments to matmul need to be at least 1D, but they are {a.ndim}D and {b.ndim}D",
        )
    if a.ndim == 1 and b.ndim == 1:
        return dot(input, other)
    if a.ndim == 2 and b.ndim == 1:
        return mv(input, other)
    if a.ndim == 1 and b.ndim == 2:
        if a.shape[0] != b.shape[0]:
            raise error(
                RuntimeError,
                f"mat1 and mat2 shapes cannot be multiplied (1x{a.shape[0]} and {_shape_text(other)})",
            )
        _same_dtype(input, other)
        return _mv(_transposed(other), input)
    if a.ndim == 2 and b.ndim == 2:
        _check_mm(input, other)
        return _mm(input, other)
    _same_dtype(input, other, "expected m1 and m2 to have the same dtype, but got: {} != {}")
    if a.ndim == 1:
        return _matmul_checked(input.unsqueeze(0), other).squeeze(-2)
    if b.ndim == 1:
        return _matmul_checked(input, other.unsqueeze(-1)).squeeze(-1)
    return _matmul_checked(input, other)


def _matmul_checked(input: Tensor, other: Tensor) -> Tensor:
    a, b = input._a, other._a
    if a.shape[-1] != b.shape[-2]:
        if b.ndim == 2 or a.ndim == 2:
            left = f"{prod(a.shape[:-1])}x{a.shape[-1]}" if b.ndim == 2 else _shape_text(input)
            if b.ndim == 2:
                raise error(RuntimeError, f"mat1 and mat2 shapes cannot be multiplied ({left} and {_shape_text(other)})")
        raise error(
            RuntimeError,
            f"Expected size for first two dimensions of batch2 tensor to be: [{prod(a.shape[:-2])}, {a.shape[-1]}] but got: "
            f"[{prod(b.shape[:-2])}, {b.shape[-2]}].",
            hint=f"The shapes are {list(a.shape)} and {list(b.shape)}.",
        )
    for i, (m, n) in enumerate(zip(a.shape[-3::-1], b.shape[-3::-1])):
        if m != n and m != 1 and n != 1:
            raise error(
                RuntimeError,
                f"The size of tensor a ({m}) must match the size of tensor b ({n}) at non-singleton dimension "
                f"{max(a.ndim, b.ndim) - 3 - i}",
            )
    return _bmm(input, other)


both(matmul, "matmul")
publish("matmul", matmul, "linalg")


def _operator(self: Tensor, other: Any) -> Any:
    if not isinstance(other, Tensor):
        return NotImplemented if not isinstance(other, ndarray) else matmul(self, _wrap(other))
    return matmul(self, other)


Tensor.__matmul__ = _operator
Tensor.__rmatmul__ = lambda self, other: matmul(_wrap(np.asarray(other)), self)
Tensor.__imatmul__ = lambda self, other: become(self, matmul(self, other))


@public(out=True)
def mv(input: Tensor, vec: Tensor) -> Tensor:
    """The product of a matrix and a vector."""
    if input._a.ndim != 2 or vec._a.ndim != 1:
        raise error(
            RuntimeError, f"vector + matrix @ vector expected, got {vec._a.ndim}, {input._a.ndim}, {vec._a.ndim}"
        )
    if input._a.shape[1] != vec._a.shape[0]:
        raise error(
            RuntimeError,
            f"size mismatch, got input ({input._a.shape[0]}), mat ({_shape_text(input)}), vec ({vec._a.shape[0]})",
        )
    _same_dtype(vec, input, "addmv input tensors must have the same dtype, but got {0}, {1}, and {0}")
    return _mv(input, vec)


def _check_vectors(a: Tensor, b: Tensor, name: str) -> None:
    _tensor(name, "input", 1, a)
    _tensor(name, "tensor", 2, b)
    takes("dot", a, "ihfc")
    if a._a.ndim != 1 or b._a.ndim != 1:
        raise error(RuntimeError, f"1D tensors expected, but got {a._a.ndim}D and {b._a.ndim}D tensors")
    if a._a.dtype != b._a.dtype:
        raise error(
            RuntimeError,
            f"dot : expected both vectors to have same dtype, but found {SCALAR_NAMES[a.dtype]} and {SCALAR_NAMES[b.dtype]}",
        )
    if a._a.size != b._a.size:
        raise error(
            RuntimeError,
            "inconsistent tensor size, expected tensor "
            f"[{a._a.size}] and src [{b._a.size}] to have the same number of elements, but got {a._a.size} and {b._a.size} "
            "elements respectively",
        )


@public(out=True)
def dot(input: Tensor, tensor: Tensor) -> Tensor:
    """The sum of the products of two vectors' elements.

    >>> import flambeau as torch
    >>> torch.dot(torch.tensor([2, 3]), torch.tensor([2, 1]))
    tensor(7)
    """
    _check_vectors(input, tensor, "dot")
    return _dot(input, tensor)


@public(out=True)
def vdot(input: Tensor, other: Tensor) -> Tensor:
    """``dot`` with the first vector conjugated."""
    _check_vectors(input, other, "vdot")
    return _vdot(input, other)


def outer(input: Tensor, vec2: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Every product of an element of one vector with one of another: (n,), (m,) -> (n, m)."""
    for which, t in (("input", input), ("vec2", vec2)):
        if t._a.ndim != 1:
            raise error(RuntimeError, f"outer: Expected 1-D argument {'self' if which == 'input' else which}, but got {t._a.ndim}-D")
    if input._a.dtype == vec2._a.dtype:
        r = outer_product(input, vec2)
    else:
        r = input.unsqueeze(-1) * vec2
    return _out("outer", r, out)


both(outer, "outer", "ger")


@public(out=True)
def inner(input: Tensor, other: Tensor) -> Tensor:
    """Sums of products over the last dimension of both."""
    if not input._a.ndim or not other._a.ndim:
        return input * other
    if input._a.shape[-1] != other._a.shape[-1]:
        raise error(
            RuntimeError,
            "inner() the last dimension must match on both input tensors but got shapes "
            f"{list(input._a.shape)} and {list(other._a.shape)}",
        )
    return tensordot(input, other, ([-1], [-1]))


# ---- products that are added to something ---------------------------------------------------------------------------
def _scaled(t: Tensor, factor: Any) -> Tensor:
    return t if factor == 1 else t * factor


def _conj_number(v: Any) -> Any:
    return v.conjugate() if isinstance(v, complex) else v


def _added_jvp(input_t: Any, a: Tensor, a_t: Any, b: Tensor, b_t: Any, beta: Any, alpha: Any) -> Tensor | None:
    parts = [_scaled(input_t, beta)] if input_t is not None and beta != 0 else []
    parts += [_scaled(matmul(p, q), alpha) for p, q in ((a_t, b), (a, b_t)) if p is not None and q is not None]
    return sum(parts[1:], parts[0]) if parts else None


def _added_batch(info: Any, input: Tensor, a: Tensor, b: Tensor, beta: Any, alpha: Any) -> Tensor:
    if not info.has("a") and not info.has("b"):
        a = info.full(a)
        info.flags["a"] = True
    p = _scaled(_product_batch(info, a, b), alpha)
    if beta == 0:
        return p
    if info.has("input"):
        input = input.reshape(info.size, *(1,) * (p._a.ndim - input._a.ndim), *input._a.shape[1:])
    return _scaled(input, beta) + p


@primitive("addmm", jvp=_added_jvp, batch=_added_batch, vjp={
    "input": lambda g, beta, input_shape: _to_shape(_scaled(g, _conj_number(beta)), input_shape),
    "a": lambda g, b, alpha: multiply(_scaled(g, _conj_number(alpha)), adjoint(b)),
    "b": lambda g, a, alpha: multiply(adjoint(a), _scaled(g, _conj_number(alpha))),
})  # fmt: skip
def _addmm(input: Any, a: Any, b: Any, /, beta: Any, alpha: Any) -> Any:
    if beta == 1 and alpha == 1 and input.ndim == 1 and input.shape[0] == b.shape[1]:
        return product(a, b, input)
    return _affine(input, product(a, b), beta, alpha)


@primitive("baddbmm", jvp=_added_jvp, batch=_added_batch, vjp={
    "input": lambda g, beta, input_shape: _to_shape(_scaled(g, _conj_number(beta)), input_shape),
    "a": lambda g, b, alpha: multiply(_scaled(g, _conj_number(alpha)), adjoint(b)),
    "b": lambda g, a, alpha: multiply(adjoint(a), _scaled(g, _conj_number(alpha))),
})  # fmt: skip
def _baddbmm(input: Any, a: Any, b: Any, /, beta: Any, alpha: Any) -> Any:
    return _affine(input, product(a, b), beta, alpha)


def _affine(input: Any, p: Any, beta: Any, alpha: Any) -> Any:
    """``beta * input + alpha * p``, into p; with beta 0 the input doesn't count, be it nan."""
    np.broadcast_shapes(p.shape, input.shape)
    t = p.dtype.type
    if alpha != 1:
        p *= t(alpha)
    if beta != 0:
        p += input if beta == 1 else (input * t(beta)).astype(p.dtype, copy=False)
    return p


def _check_added(input: Tensor, shape: tuple[int, ...]) -> None:
    a = input._a.shape
    for i, (m, n) in enumerate(zip(a[::-1], shape[::-1])):
        if m != n and m != 1:
            raise error(
                RuntimeError,
                f"The expanded size of the tensor ({n}) must match the existing size ({m}) at non-singleton dimension "
                f"{len(shape) - 1 - i}.  Target sizes: {list(shape)}.  Tensor sizes: {list(a)}",
            )
    if len(a) > len(shape):
        raise error(
            RuntimeError,
            f"expand(torch.FloatTensor{{{list(a)}}}, size={list(shape)}): the number of sizes provided ({len(shape)}) must be "
            f"greater or equal to the number of dimensions in the tensor ({len(a)})",
        )


@public(inplace=True, out=True)
def addmm(input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """``beta * input + alpha * (mat1 @ mat2)``."""
    for which, t in (("mat1", mat1), ("mat2", mat2)):
        if t._a.ndim != 2:
            raise error(RuntimeError, f"{which} must be a matrix, got {t._a.ndim}-D tensor")
    _check_mm(mat1, mat2)
    _same_dtype(input, mat1, "self and mat2 must have the same dtype, but got {} and {}")
    _check_added(input, (mat1._a.shape[0], mat2._a.shape[1]))
    return _addmm(input, mat1, mat2, beta, alpha)


@public(inplace=True, out=True)
def baddbmm(input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """``beta * input + alpha * bmm(batch1, batch2)``."""
    a, b = batch1._a, batch2._a
    for which, t in (("batch1", batch1), ("batch2", batch2)):
        if t._a.ndim != 3:
            raise error(RuntimeError, f"{which} must be a 3D tensor")
    if b.shape[0] != a.shape[0] or b.shape[1] != a.shape[2]:
        raise error(
            RuntimeError,
            f"Expected size for first two dimensions of batch2 tensor to be: [{a.shape[0]}, {a.shape[2]}] but got: "
            f"[{b.shape[0]}, {b.shape[1]}].",
        )
    _same_dtype(batch1, batch2, "expected scalar type {} but found {}")
    _same_dtype(input, batch1, "Input dtypes must be the same, got: input {0}, batch1: {1}, batch2: {1}")
    _check_added(input, (a.shape[0], a.shape[1], b.shape[2]))
    return _baddbmm(input, batch1, batch2, beta, alpha)


@public(inplace=True, out=True)
def addbmm(input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """``beta * input + alpha * sum of the products of a batch of matrices``."""
    total = bmm(batch1, batch2).sum(0, dtype=batch1.dtype)
    return _scaled(input, beta) + _scaled(total, alpha) if beta != 0 else _scaled(total, alpha)


@public(inplace=True, out=True)
def addmv(input: Tensor, mat: Tensor, vec: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """``beta * input + alpha * (mat @ vec)``."""
    product = _scaled(mv(mat, vec), alpha)
    return _scaled(input, beta) + product if beta != 0 else product


@public(inplace=True, out=True)
def addr(input: Tensor, vec1: Tensor, vec2: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """``beta * input + alpha * outer(vec1, vec2)``."""
    product = _scaled(outer(vec1, vec2), alpha)
    return _scaled(input, beta) + product if beta != 0 else product


# ---- layers ---------------------------------------------------------------------------------------------------------
def _weight_gradient(g: Tensor, x: Tensor) -> Tensor:
    if mode() is False:
        a, b = g._a, x._a
        if a.ndim != 2:
            rows = prod(a.shape[:-1])
            a, b = a.reshape(rows, a.shape[-1]), b.reshape(rows, b.shape[-1])
        a = a.T
        return _wrap(product(a, b) if a.dtype.kind != "c" else product(a, b.conj()))
    n = x._a.ndim
    if n == 2:
        return multiply(_transposed(g), conj(x))
    return multiply(_transposed(g.reshape(-1, g._a.shape[-1])), conj(x).reshape(-1, x._a.shape[-1]))


def _input_gradient(g: Tensor, w: Tensor) -> Tensor:
    if mode() is False and w._a.dtype.kind != "c":
        a = g._a
        if a.ndim == 2:
            return _wrap(product(a, w._a))
        shape = (*a.shape[:-1], w._a.shape[1])
        return _wrap(product(a.reshape(prod(a.shape[:-1]), a.shape[-1]), w._a).reshape(shape))
    return multiply(g, conj(w))


_LINEAR_RULES = {"x": lambda g, w: _input_gradient(g, w), "w": lambda g, x: _weight_gradient(g, x)}


def _linear_jvp(x: Tensor, x_t: Any, w: Tensor, w_t: Any, b_t: Any = None) -> Tensor | None:
    parts = [linear(p, q) for p, q in ((x_t, w), (x, w_t)) if p is not None and q is not None]
    if b_t is not None:
        parts.append(b_t)
    return sum(parts[1:], parts[0]) if parts else None


def _linear_batch(info: Any, x: Tensor, w: Tensor, b: Any) -> Tensor:
    own = info.has("w") or b is not None and info.has("b")
    if not own:
        return linear(x, w, b)
    return linear_each(*[None if t is None else info.full(t, info.has(name)) for name, t in (("x", x), ("w", w), ("b", b))])


@primitive(
    "linear_bias", node="AddmmBackward0", vjp={**_LINEAR_RULES, "b": lambda g: rows_sum(g)}, batch=_linear_batch,
    jvp=lambda x, x_t, w, w_t, b_t: _linear_jvp(x, x_t, w, w_t, b_t),
)  # fmt: skip
def _linear_bias(x: Any, w: Any, b: Any, /) -> Any:
    return linear_kernel(x, w, b)


@primitive(
    "linear_plain", node="MmBackward0", vjp=_LINEAR_RULES, batch=lambda info, x, w: _linear_batch(info, x, w, None),
    jvp=lambda x, x_t, w, w_t: _linear_jvp(x, x_t, w, w_t),
)  # fmt: skip
def _linear_plain(x: Any, w: Any, /) -> Any:
    return linear_kernel(x, w)


# Inside vmap, a weight for each example. Where gradients for each example are asked for it is one weight expanded over
# the batch, which takes one product forward.
def of_all(a: Any) -> bool:
    """Whether the examples of an array are one, expanded."""
    return a is None or a.shape[0] > 0 and a.strides[0] == 0


def _rows(t: Tensor) -> Tensor:
    """(B, *, n) -> (B, rows, n)."""
    return t if t._a.ndim == 3 else t.reshape(t._a.shape[0], prod(t._a.shape[1:-1]), t._a.shape[-1])


def _each_rows_sum(g: Tensor) -> Tensor:
    g = _rows(g)
    return g.sum(1) if g._a.shape[1] != 1 else g.reshape(g._a.shape[0], g._a.shape[2])


def _each_jvp(x: Tensor, x_t: Any, w: Tensor, w_t: Any, b_t: Any) -> Tensor | None:
    parts = [linear_each(p, q, None) for p, q in ((x_t, w), (x, w_t)) if p is not None and q is not None]
    if b_t is not None:
        parts.append(b_t.reshape(b_t._a.shape[0], *(1,) * (x._a.ndim - 2), b_t._a.shape[1]))
    return sum(parts[1:], parts[0]) if parts else None


def folded(info: Any, op: Any, *operands: Any) -> Any:
    """A batching rule for operators on examples: (B', B, *) becomes one batch. ``operands``: (name, tensor or None)."""
    full = [None if t is None else info.full(t, info.has(name)) for name, t in operands]
    n = next(t._a.shape[1] for t in full if t is not None)
    out = op(*[None if t is None else t.reshape(info.size * n, *t._a.shape[2:]) for t in full])
    if out.__class__ is tuple:
        return tuple([t.reshape(info.size, n, *t._a.shape[1:]) for t in out])
    return out.reshape(info.size, n, *out._a.shape[1:])


@primitive(
    "linear_each", node="BaddbmmBackward0", jvp=_each_jvp,
    vjp={
        "x": lambda g, w, x_shape: multiply(_rows(g), conj(w)).reshape(x_shape),
        "w": lambda g, x: multiply(_transposed(_rows(g)), conj(_rows(x))),
        "b": lambda g: _each_rows_sum(g),
    },
    batch=lambda info, x, w, b: folded(info, linear_each, ("x", x), ("w", w), ("b", b)),
)  # fmt: skip
def linear_each(x: Any, w: Any, b: Any, /) -> Any:
    """(B, *, in), (B, out, in), (B, out) -> (B, *, out)."""
    if of_all(w) and of_all(b):
        return linear_kernel(x, w[0], None if b is None else b[0])
    y = product(x.reshape(x.shape[0], prod(x.shape[1:-1]), x.shape[-1]), w.swapaxes(1, 2))
    if b is not None:
        y += b[:, None]
    return y.reshape(*x.shape[:-1], w.shape[1])


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``input @ weight.T + bias``: (*, in), (out, in), (out,) -> (*, out).

    >>> import flambeau as torch
    >>> torch.nn.functional.linear(torch.ones(2, 3), torch.ones(1, 3), torch.ones(1))
    tensor([[4.],
            [4.]])
    """
    try:
        x, w = input._a, weight._a
    except AttributeError:
        _tensor("linear", "input", 1, input)
        _tensor("linear", "weight", 2, weight)
        raise
    if bias is None:
        if x.ndim > 1 and w.ndim == 2 and x.shape[-1] == w.shape[1] and x.dtype is w.dtype:
            return _linear_plain(input, weight)
    else:
        b = bias._a
        if (
            x.ndim > 1 and w.ndim == 2 and x.shape[-1] == w.shape[1] and x.dtype is w.dtype
            and b.dtype is w.dtype and b.shape == w.shape[:1]
        ):  # fmt: skip
            return _linear_bias(input, weight, bias)
    return _linear_general(input, weight, bias)


def _linear_general(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    x, w = input._a, weight._a
    if not x.ndim or w.ndim not in (1, 2):
        raise error(
            RuntimeError,
            f"both arguments to linear need to be at least 1D, but they are {x.ndim}D and {w.ndim}D",
        )
    if x.shape[-1] != w.shape[-1]:
        left = f"{prod(x.shape[:-1])}x{x.shape[-1]}"
        right = "x".join(map(str, w.shape[::-1]))
        raise error(
            RuntimeError, f"mat1 and mat2 shapes cannot be multiplied ({left} and {right})",
            hint=f"The input has {x.shape[-1]} features, the layer takes {w.shape[-1]}.",
        )
    if bias is None:
        _same_dtype(input, weight)
    else:
        _same_dtype(bias, weight, "self and mat2 must have the same dtype, but got {} and {}")
        _same_dtype(input, weight, "mat1 and mat2 must have the same dtype, but got {} and {}")
    if w.ndim == 1:
        r = matmul(input, weight)
        return r if bias is None else r + bias
    if x.ndim == 1:
        r = linear(input.unsqueeze(0), weight, bias)
        return r.squeeze(0)
    r = _linear_plain(input, weight)
    if bias is None:
        return r
    _check_added(bias, r._a.shape)
    return r + bias


publish("linear", linear, "nn.functional")


@public(module="nn.functional")
def bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x1^T W_k x2 + b_k`` for each k: (*, in1), (*, in2), (out, in1, in2), (out,) -> (*, out)."""
    a, b, w = input1._a, input2._a, weight._a
    if a.ndim != b.ndim or a.shape[:-1] != b.shape[:-1]:
        raise error(RuntimeError, f"bilinear(): input batch dimensions do not match: {list(a.shape)} and {list(b.shape)}")
    if a.shape[-1] != w.shape[1] or b.shape[-1] != w.shape[2]:
        which = 1 if a.shape[-1] != w.shape[1] else 2
        size = (a, b)[which - 1].shape[-1]
        raise error(
            RuntimeError, f"bilinear(): input{which} size does not match weight size: got {size} but expected {w.shape[which]}"
        )
    left = einsum("...i,kij->...kj", input1, weight)
    r = (left * input2.unsqueeze(-2)).sum(-1, dtype=input1.dtype)
    return r if bias is None else r + bias


publish("bilinear", bilinear)


# ---- products over any dimensions -----------------------------------------------------------------------------------
@public
def tensordot(a: Tensor, b: Tensor, dims: Any = 2, out: Tensor | None = None) -> Tensor:
    """The sum of products over the last ``dims`` dimensions of a and the first of b, or over the pairs given.

    >>> import flambeau as torch
    >>> torch.tensordot(torch.ones(3, 4, 5), torch.ones(4, 3, 2), dims=([1, 0], [0, 1])).shape
    torch.Size([5, 2])
    """
    x, y = a._a, b._a
    if isinstance(dims, Tensor):
        dims = dims._a.tolist()
    if isinstance(dims, int):
        if dims < 0:
            raise error(RuntimeError, f"tensordot expects dims >= 0, but got dims={dims}")
        if dims > min(x.ndim, y.ndim):
            raise error(
                RuntimeError,
                f"tensordot expects dims < ndim_a or ndim_b, but got dims={dims} ndim_a={x.ndim} ndim_b={y.ndim}",
            )
        pairs = (list(range(-dims, 0)), list(range(dims)))
    else:
        pairs = tuple([d] if isinstance(d, int) else list(d) for d in dims)  # type: ignore[assignment]
    first = [wrap_dim(d, x.ndim) for d in pairs[0]]
    second = [wrap_dim(d, y.ndim) for d in pairs[1]]
    if len(first) != len(second):
        raise error(RuntimeError, "both dimension lists should have same length")
    for given, d, e in zip(pairs[0], first, second):
        if x.shape[d] != y.shape[e]:
            raise error(
                RuntimeError,
                f"contracted dimensions need to match, but first has size {x.shape[d]} in dim {given} and second has size "
                f"{y.shape[e]} in dim {e}",
            )
    keep = [d for d in range(x.ndim) if d not in first]
    keep2 = [d for d in range(y.ndim) if d not in second]
    k = prod(x.shape[d] for d in first)
    shape = [x.shape[d] for d in keep] + [y.shape[d] for d in keep2]
    left = a.permute(keep + first).reshape(prod(x.shape[d] for d in keep), k)
    right = b.permute(second + keep2).reshape(k, prod(y.shape[d] for d in keep2))
    _same_dtype(a, b, "both inputs should have same dtype")
    r = _mm(left, right).reshape(shape)
    return _out("tensordot", r, out)


@public(out=True)
def kron(input: Tensor, other: Tensor) -> Tensor:
    """The Kronecker product: every element of ``input`` times all of ``other``."""
    n = max(input._a.ndim, other._a.ndim)
    s = (1,) * (n - input._a.ndim) + input._a.shape
    t = (1,) * (n - other._a.ndim) + other._a.shape
    a = input.reshape([m for p in s for m in (p, 1)])
    b = other.reshape([m for p in t for m in (1, p)])
    return (a * b).reshape([p * q for p, q in zip(s, t)])


def chain_matmul(*matrices: Tensor, out: Tensor | None = None) -> Tensor:
    """The product of several matrices, in the order that multiplies least."""
    ms = tuple(matrices[0]) if len(matrices) == 1 and not isinstance(matrices[0], Tensor) else matrices
    return _out("chain_matmul", ms[0] if len(ms) == 1 else multi_dot(ms), out)


publish("chain_matmul", chain_matmul)


def multi_dot(tensors: Any, *, out: Tensor | None = None) -> Tensor:
    """The product of two or more matrices (the first and last may be vectors), in the order that multiplies least."""
    ts = list(tensors)
    if len(ts) < 2:
        raise error(RuntimeError, f"multi_dot(): expected at least 2 tensors but got {len(ts)}")
    first, last = ts[0]._a.ndim == 1, ts[-1]._a.ndim == 1
    if first:
        ts[0] = ts[0].unsqueeze(0)
    if last:
        ts[-1] = ts[-1].unsqueeze(-1)
    for t in ts:
        if t._a.ndim != 2:
            raise error(RuntimeError, f"multi_dot(): expected 2D tensors between the first and the last, got {t._a.ndim}D")
    sizes = [ts[0]._a.shape[0]] + [t._a.shape[1] for t in ts]
    r = _chain(ts, _best_split(sizes), 0, len(ts) - 1)
    if first:
        r = r.squeeze(0)
    if last:
        r = r.squeeze(-1)
    return _out("multi_dot", r, out)


publish("multi_dot", multi_dot, "linalg")


def _best_split(sizes: list[int]) -> dict[tuple[int, int], int]:
    """Where to cut each stretch of the chain: dynamic programming over the number of multiplications."""
    n = len(sizes) - 1
    cost: dict[tuple[int, int], int] = {(i, i): 0 for i in range(n)}
    split: dict[tuple[int, int], int] = {}
    for length in range(1, n):
        for i in range(n - length):
            j = i + length
            cost[i, j], split[i, j] = min(
                (cost[i, k] + cost[k + 1, j] + sizes[i] * sizes[k + 1] * sizes[j + 1], k) for k in range(i, j)
            )
    return split


def _chain(ts: list[Tensor], split: dict[tuple[int, int], int], i: int, j: int) -> Tensor:
    if i == j:
        return ts[i]
    k = split[i, j]
    return mm(_chain(ts, split, i, k), _chain(ts, split, k + 1, j))


# ---- einsum ---------------------------------------------------------------------------------------------------------
@public(method=False)
def einsum(equation: str, *operands: Any) -> Tensor:
    """Sums of products by Einstein's convention, as in ``einsum("bij,bjk->bik", a, b)``.

    >>> import flambeau as torch
    >>> torch.einsum("ii", torch.eye(3))
    tensor(3.)
    """
    if not isinstance(equation, str):
        equation, operands = _from_sublists((equation, *operands))
    ts = tuple(operands[0]) if len(operands) == 1 and not isinstance(operands[0], Tensor) else operands
    if not ts:
        raise error(RuntimeError, "einsum(): must provide at least one operand")
    inputs, output = _parse(equation.replace(" ", ""), ts)
    terms = [_own(t, labels) for t, labels in zip(ts, inputs)]
    _check_labels(terms)
    while len(terms) > 1:
        i, j = _cheapest(terms, output)
        b = terms.pop(j)
        a = terms.pop(i)
        needed = set(output).union(*[t[1] for t in terms])
        terms.insert(0, _contract(a, b, needed))
    t, labels = terms[0]
    gone = [i for i, label in enumerate(labels) if label not in output]
    if gone:
        t = t.sum(gone)
        labels = [label for label in labels if label in output]
    order = [labels.index(label) for label in output]
    return t if order == list(range(len(order))) else t.permute(order)


def _from_sublists(args: tuple[Any, ...]) -> tuple[str, tuple[Any, ...]]:
    """``einsum(a, [0, 1], b, [1, 2], [0, 2])`` as an equation."""
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

    def text(sub: Any) -> str:
        return "".join("..." if s is Ellipsis else letters[s] for s in sub)

    n = len(args) // 2
    equation = ",".join(text(args[2 * i + 1]) for i in range(n))
    if len(args) % 2:
        equation += "->" + text(args[-1])
    return equation, args[0 : 2 * n : 2]


def _parse(equation: str, ts: tuple[Tensor, ...]) -> tuple[list[list[str]], list[str]]:
    """Labels of every operand and of the result; the dimensions of an ellipsis are labelled "0", "1", ..."""
    left, arrow, right = equation.partition("->")
    parts = left.split(",")
    if len(parts) < len(ts):
        raise error(RuntimeError, "einsum(): more operands were provided than specified in the equation")
    if len(parts) > len(ts):
        raise error(RuntimeError, "einsum(): fewer operands were provided than specified in the equation")
    inputs: list[list[str]] = []
    widest = 0
    for i, (part, t) in enumerate(zip(parts, ts)):
        plain = part.replace("...", "", 1)
        for ch in plain:
            if not (ch.isalpha() and ch.isascii()):
                raise error(RuntimeError, f"einsum(): invalid subscript given at index {part.index(ch)} in the equation string, "
                            "subscripts must be in [a-zA-Z]")  # fmt: skip
        dots = "..." in part
        extra = t._a.ndim - len(plain)
        if extra < 0 or extra and not dots:
            raise error(
                RuntimeError,
                f"einsum(): the number of subscripts in the equation ({len(plain)}) "
                f"{'is more than' if dots else 'does not match'} the number of dimensions ({t._a.ndim}) for operand {i}"
                + ("" if dots else " and no ellipsis was given"),
            )
        at = part.index("...") if dots else len(plain)
        widest = max(widest, extra)
        inputs.append([*plain[:at], *(str(extra - 1 - k) for k in range(extra)), *plain[at:]])
    ellipsis = [str(widest - 1 - k) for k in range(widest)]
    counts: dict[str, int] = {}
    for labels in inputs:
        for label in labels:
            counts[label] = counts.get(label, 0) + 1
    if not arrow:
        output = ellipsis + sorted(label for label, n in counts.items() if n == 1 and label.isalpha())
    else:
        plain = right.replace("...", "", 1)
        at = right.index("...") if "..." in right else len(plain)
        output = [*plain[:at], *(ellipsis if "..." in right else ()), *plain[at:]]
        for label in plain:
            if label not in counts:
                raise error(
                    RuntimeError,
                    f"einsum(): output subscript {label} does not appear in the equation for any input operand",
                )
            if plain.count(label) > 1:
                raise error(RuntimeError, f"einsum(): output subscript {label} appears more than once in the output")
    return inputs, output


Term = tuple[Tensor, list[str]]


def _own(t: Tensor, labels: list[str]) -> Term:
    """An operand with each label once: repeated ones become a diagonal."""
    labels = list(labels)
    while True:
        twice = next((label for label in labels if labels.count(label) > 1), None)
        if twice is None:
            return t, labels
        i = labels.index(twice)
        j = labels.index(twice, i + 1)
        s = t._a.shape
        if s[i] != s[j]:
            raise error(
                RuntimeError,
                f"einsum(): subscript {twice} is repeated for operand 0 but the sizes don't match, {s[j]} != {s[i]}",
            )
        t = t.diagonal(0, i, j)
        labels = [label for k, label in enumerate(labels) if k not in (i, j)] + [twice]


def _check_labels(terms: list[Term]) -> None:
    sizes: dict[str, int] = {}
    for k, (t, labels) in enumerate(terms):
        for label, n in zip(labels, t._a.shape):
            m = sizes.setdefault(label, n)
            if m != n and 1 not in (m, n):
                raise error(
                    RuntimeError,
                    f"einsum(): subscript {label} has size {n} for operand {k} which does not broadcast with previously seen "
                    f"size {m}",
                )
            sizes[label] = max(m, n) if 0 not in (m, n) else 0


def _sizes(*terms: Term) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for t, labels in terms:
        for label, n in zip(labels, t._a.shape):
            sizes[label] = n if sizes.get(label, 1) == 1 else sizes[label]
    return sizes


def _cheapest(terms: list[Term], output: list[str]) -> tuple[int, int]:
    """Which two to multiply next: the pair whose product takes the fewest multiplications."""
    if len(terms) == 2:
        return 0, 1
    pairs = [(i, j) for j in range(len(terms)) for i in range(j)]
    return min(pairs, key=lambda p: (prod(_sizes(terms[p[0]], terms[p[1]]).values()), p))


def _contract(a: Term, b: Term, needed: set[str]) -> Term:
    """The product of two terms, summed over what nobody needs, as one batched matrix product."""
    (x, lx), (y, ly) = a, b
    x, lx = _drop(x, lx, needed | set(ly))
    y, ly = _drop(y, ly, needed | set(lx))
    sx, sy = dict(zip(lx, x._a.shape)), dict(zip(ly, y._a.shape))
    shared = [label for label in lx if label in sy]
    if any(sx[s] != sy[s] for s in shared) or not shared and not (lx and ly):
        return _multiply_out(x, lx, y, ly, needed)
    batch = [s for s in shared if s in needed]
    summed = [s for s in shared if s not in needed]
    rows = [s for s in lx if s not in sy]
    columns = [s for s in ly if s not in sx]
    nb, nk = [sx[s] for s in batch], prod(sx[s] for s in summed)
    nr, nc = [sx[s] for s in rows], [sy[s] for s in columns]
    if not summed and (not rows or not columns or x._a.dtype.kind == "b"):
        return _multiply_out(x, lx, y, ly, needed)
    if x._a.dtype != y._a.dtype:
        _same_dtype(x, y)
    left = _arrange(x, lx, batch + rows + summed).reshape([*nb, prod(nr), nk])
    right = _arrange(y, ly, batch + summed + columns).reshape([*nb, nk, prod(nc)])
    r = multiply_recorded(left, right).reshape([*nb, *nr, *nc])
    return r, batch + rows + columns


def multiply_recorded(a: Tensor, b: Tensor) -> Tensor:
    return _mm(a, b) if a._a.ndim == 2 else _bmm(a, b)


def _arrange(t: Tensor, labels: list[str], order: list[str]) -> Tensor:
    places = [labels.index(s) for s in order]
    return t if places == list(range(len(places))) else t.permute(places)


def _drop(t: Tensor, labels: list[str], keep: set[str]) -> Term:
    gone = [i for i, s in enumerate(labels) if s not in keep]
    return (t.sum(gone), [s for s in labels if s in keep]) if gone else (t, labels)


def _multiply_out(x: Tensor, lx: list[str], y: Tensor, ly: list[str], needed: set[str]) -> Term:
    """By broadcasting: nothing is summed, or a shared dimension has size 1 on one side."""
    labels = lx + [s for s in ly if s not in lx]
    wide = [x, y]
    for k, (t, own) in enumerate(((x, lx), (y, ly))):
        t = _arrange(t, own, [s for s in labels if s in own])
        sizes = dict(zip(own, wide[k]._a.shape))
        wide[k] = t.reshape([sizes.get(s, 1) for s in labels])
    return _drop(wide[0] * wide[1], labels, needed)
