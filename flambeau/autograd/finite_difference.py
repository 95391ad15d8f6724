"""Derivatives of what has none: a black box, differentiated by central differences.

The derivative of f along a direction is (f(x + h) - f(x - h)) / 2h, with a truncation error of h² f'''/6 and a rounding
error of ε |f| / h, ε the precision of the dtype. Their sum is least near h = ε^(1/3), for values of about 1, and is then
of the order ε^(2/3). (Press et al., Numerical Recipes, 3rd edition, section 5.7.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..core.dtypes import COMPLEX, FLOAT
from ..core.errors import error
from ..core.modes import mode, no_grad
from ..core.tensor import Tensor, wrap
from .forward_ad import levels_of
from .function import Error, Function, refusing
from .primitive import PRIMITIVES
from .transforms.batched import Batched
from .transforms.batching import stacked

SECOND = "finite_difference gives first derivatives only: differences of differences would be mostly rounding error."
INSTEAD = "For higher derivatives, write a Function with a backward of its own."


def finite_difference(fn: Callable[..., Any], eps: float | None = None) -> Callable[..., Any]:
    """Make a differentiable function of a black box, which may compute with NumPy or with anything else.

    Each partial derivative is a central difference, with x rounded to where it really is evaluated:

        ∂f/∂x ≈ (f(x + h) - f(x - h)) / 2h,    h = eps · max(1, |x|)

    ============  ===========  =================================
    dtype         default eps  relative error, about
    ============  ===========  =================================
    float64       6e-6         4e-11
    float32       5e-3         2e-5
    float16       1e-1         1e-2
    ============  ===========  =================================

    Reverse mode calls ``fn`` 2n times for an input of n elements (4n times for a complex one), whatever the number of
    outputs; forward mode twice. So for a function of many inputs and few outputs this is slow.

    Args:
        fn: takes tensors, and arguments of other kinds, which are passed on as they are; returns a tensor or a tuple of
            them. It gets copies, and must compute the same each time.
        eps: the step relative to max(1, |x|); default: the cube root of the dtype's precision. A black box that
            computes less exactly than its dtype, such as an iterative solver, wants a greater one: the cube root of
            its tolerance.

    Raises TypeError for tensors of integers among the arguments, and RuntimeError where a second derivative is asked for.

    >>> import flambeau as torch
    >>> import numpy as np
    >>> box = torch.autograd.finite_difference(lambda x: torch.from_numpy(np.cumsum(x.numpy() ** 2)))
    >>> x = torch.tensor([1., 2., 3.], dtype=torch.float64, requires_grad=True)
    >>> y = box(x)
    >>> y
    tensor([ 1.,  5., 14.], dtype=torch.float64, grad_fn=<BlackBoxBackward>)
    >>> y.sum().backward(); x.grad
    tensor([6.0000, 8.0000, 6.0000], dtype=torch.float64)
    """
    if not callable(fn):
        raise error(TypeError, f"finite_difference expects a function, got {type(fn).__name__}")
    if eps is not None and not eps > 0:
        raise error(ValueError, f"finite_difference: eps must be positive, got {eps}")

    def differentiable(*args: Any, **kwargs: Any) -> Any:
        for name, a in (*enumerate(args), *kwargs.items()):
            if isinstance(a, Tensor) and a.dtype.category < FLOAT:
                raise error(
                    TypeError, f"finite_difference: argument {name!r} is of dtype {a.dtype}, which has no derivative",
                    hint="Convert it to a floating dtype, or keep it out of the arguments.",
                )  # fmt: skip
        return BlackBox.apply(fn, eps, tuple(kwargs), *args, *kwargs.values())

    differentiable.__name__ = differentiable.__qualname__ = getattr(fn, "__name__", "black_box")
    differentiable.__doc__ = fn.__doc__
    return differentiable


class BlackBox(Function):
    """A call of a black box; its arguments: the function, the step, the names of the last arguments, the arguments."""

    @staticmethod
    def forward(ctx: Any, fn: Any, eps: Any, names: tuple[str, ...], *args: Any) -> Any:
        ctx.call = fn, eps, names
        ctx.others = [None if isinstance(a, Tensor) else a for a in args]
        ctx.save_for_backward(*[a if isinstance(a, Tensor) else None for a in args])
        ctx.save_for_forward(*[a if isinstance(a, Tensor) else None for a in args])
        ctx.set_materialize_grads(False)
        result = called(fn, names, [a._detached() if isinstance(a, Tensor) else a for a in args])
        ctx.shapes, ctx.is_tuple = [o._a.shape for o in several(result)], isinstance(result, tuple)
        return result

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        saved = ctx.saved_tensors
        refuse_second(*saved, *grads)
        with no_grad():
            box = Box(ctx, saved)
            found = [box.gradient(i, grads) if ctx.needs_input_grad[i + 3] else None for i in range(len(saved))]
        m = mode()
        if m is True or m is not False and m.grad:  # this pass is to be differentiated: that must not give zeros
            node = Error(SECOND, INSTEAD, (*saved, *grads))
            found = [None if g is None else refusing(g, node) for g in found]
        return (None, None, None, *found)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        saved = ctx.saved_tensors
        refuse_second(*saved, *tangents)
        with no_grad():
            outs = Box(ctx, saved).along(tangents[3:])
        if any([t is not None and t._rg for t in (*saved, *tangents[3:])]):
            node = Error(SECOND, INSTEAD, (*saved, *tangents[3:]))
            outs = [refusing(o, node) for o in outs]
        return tuple(outs) if ctx.is_tuple else outs[0]

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> Any:
        """One example after the other: a black box knows nothing of batches."""

        def example(i: int) -> list[Any]:
            return [a.select(d, i) if isinstance(a, Tensor) and d is not None else a for a, d in zip(args, in_dims)]

        out = stacked([BlackBox.apply(*example(i)) for i in range(info.batch_size)])
        return out, tuple([0] * len(out)) if isinstance(out, tuple) else 0


def several(result: Any) -> tuple[Any, ...]:
    return result if isinstance(result, tuple) else (result,)


def called(fn: Any, names: tuple[str, ...], args: list[Any]) -> Any:
    """The black box's own result, on copies of what tensors there are."""
    args = [wrap(a._a.copy()) if isinstance(a, Tensor) else a for a in args]
    n = len(args) - len(names)
    result = fn(*args[:n], **dict(zip(names, args[n:])))
    for o in several(result):
        if not isinstance(o, Tensor):
            raise error(
                TypeError, f"finite_difference: the function must return a Tensor or a tuple of Tensors, got {type(o).__name__}",
                hint="Of a NumPy array torch.from_numpy(array) makes one." if isinstance(o, (np.ndarray, np.generic)) else None,
            )  # fmt: skip
    return result


def refuse_second(*tensors: Any) -> None:
    if levels_of([physical(t) for t in tensors]):
        raise error(RuntimeError, SECOND, hint=INSTEAD)


class Box:
    """The function around the arguments of one call."""

    def __init__(self, ctx: Any, tensors: Any) -> None:
        self.fn, self.eps, self.names = ctx.call
        self.others, self.shapes = ctx.others, ctx.shapes
        self.arrays: list[Any] = [None if t is None else t._a for t in tensors]
        self.dtypes: list[Any] = [None if t is None else t.dtype for t in tensors]

    def step(self, dtype: Any) -> float:
        if self.eps is not None:
            return self.eps
        from ..core.limits import finfo  # brings ml_dtypes

        return finfo(dtype).eps ** (1 / 3)

    def at(self, changed: dict[int, np.ndarray]) -> list[np.ndarray]:
        """The outputs where some of the arguments are others."""
        args = [changed.get(i, a) for i, a in enumerate(self.arrays)]
        outs = several(called(self.fn, self.names, [o if a is None else wrap(a) for a, o in zip(args, self.others)]))
        if [o._a.shape for o in outs] != self.shapes:
            raise error(
                RuntimeError, "finite_difference: the function returned other shapes for slightly different arguments: "
                f"{[list(o._a.shape) for o in outs]}, and {[list(s) for s in self.shapes]} before",
            )  # fmt: skip
        return [o._a for o in outs]

    def gradient(self, i: int, grads: Any) -> Tensor:
        """Σ g ∂f/∂x for each element of argument ``i``; the parts of a complex one are two real variables."""
        x = self.arrays[i]
        directions = (1.0, 1j) if self.dtypes[i].category == COMPLEX else (1.0,)
        slopes: list[Any] = []
        for index in np.ndindex(x.shape):
            h = self.step(self.dtypes[i]) * max(1.0, float(abs(x[index])))
            slope: Any = 0
            for direction in directions:
                ends = []
                for sign in (1, -1):
                    moved = x.copy()
                    moved[index] += np.asarray(sign * h * direction).astype(x.dtype)
                    ends.append((moved[index], self.at({i: moved})))
                (there, plus), (here, minus) = ends
                width = abs(wide(there) - wide(here))
                slope = slope + direction * sum([inner(g, (wide(p) - wide(q)) / width) for g, p, q in zip(grads, plus, minus) if g is not None])
            slopes.append(slope)
        if any([isinstance(s, Tensor) for s in slopes]):
            return PRIMITIVES["stack"](*slopes, dim=0).to(self.dtypes[i]).reshape(x.shape)
        return wrap(np.array(slopes).reshape(x.shape).astype(x.dtype))

    def along(self, tangents: Any) -> list[Tensor]:
        """The derivative along a direction, by one difference."""
        moving = [i for i, t in enumerate(tangents) if t is not None]
        length = max([float(np.abs(wide(tangents[i]._a)).max(initial=0)) for i in moving], default=0.0)
        size = max([float(np.abs(wide(self.arrays[i])).max(initial=0)) for i in moving], default=0.0)
        h = max([self.step(self.dtypes[i]) for i in moving], default=1.0) * max(1.0, size) / (length or 1.0)
        plus, minus = [
            self.at({i: (wide(self.arrays[i]) + sign * h * wide(tangents[i]._a)).astype(self.arrays[i].dtype) for i in moving})
            for sign in (1, -1)
        ]
        return [wrap(np.asarray((wide(p) - wide(q)) / (2 * h)).astype(p.dtype)) for p, q in zip(plus, minus)]


def inner(g: Tensor, d: np.ndarray) -> Any:
    """Re Σ conj(g) d: how far the result moves, weighed by ``g``, which may stand for a batch of gradients."""
    if isinstance(g, Batched):
        found = (g.conj() * wrap(d).to(g.dtype)).sum()
        return found.real if found.dtype.category == COMPLEX else found
    return float(np.vdot(wide(g._a), d).real)


def physical(t: Any) -> Any:
    while isinstance(t, Batched):
        t = t._value
    return t


def wide(a: Any) -> Any:
    """In double precision, so that differences lose nothing further."""
    return np.asarray(a).astype(np.complex128 if np.asarray(a).dtype.kind == "c" else np.float64)
