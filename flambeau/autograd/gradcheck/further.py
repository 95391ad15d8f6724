"""Rules that hold besides the values: gradients of nothing are nothing, and vmap changes no gradient."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from ...core.errors import error
from ...core.tensor import Tensor, new_tensor, wrap
from ..engine import grad
from ..node import Node, accumulator, next_seq
from . import GradcheckError
from .problem import Problem, as_tuple, close, is_complex, output_tensors
from .vectors import Uniform


def multiplied_by_grad_output(p: Problem) -> None:
    """The backward of zeros is zero, and of the right dtype and size."""
    zeros = tuple([wrap(np.zeros(o._a.shape, o._a.dtype)) for o in p.outs])
    for j, (g, x) in enumerate(zip(grad(p.outs, p.wanted, zeros, allow_unused=True), p.wanted)):
        if g is None:
            continue
        name = p.input_name(j)
        if not (g._a == 0).all():
            raise error(
                GradcheckError, "backward not multiplied by grad_output",
                hint=f"With a grad_output of zeros the gradient for {name} isn't zero: it must be linear in grad_output.",
            )  # fmt: skip
        if g._a.dtype != x._a.dtype:
            raise error(GradcheckError, "grad is incorrect type", hint=f"The gradient for {name} is {g.dtype}, not {x.dtype}.")
        if g._a.shape != x._a.shape:
            raise error(GradcheckError, "grad is incorrect size", hint=f"The gradient for {name} has shape {list(g.shape)}, not {list(x.shape)}.")


# ---- no gradient at all -------------------------------------------------------------------------------------------
class UndefinedGrad(Node):
    """Passes on no gradient, whatever arrives."""

    __slots__ = ()

    def __init__(self, t: Tensor) -> None:
        self.next, self.nrs = (t._grad_fn if t._grad_fn is not None else accumulator(t),), (t._nr,)
        self.saved, self.extra, self.seq, self.where = (), None, next_seq(), None

    def apply(self, g: Any, wanted: Any = None) -> tuple[Any, ...]:
        return (None,)


def without_gradient(t: Tensor) -> Tensor:
    """``t`` as an output whose gradient never arrives."""
    r = new_tensor(Tensor)
    r._a, r._grad_fn, r._rg = t._a, UndefinedGrad(t), True
    return r


def undefined_gradients(p: Problem) -> None:
    """No output has a gradient; then all but one have one (of zeros): nothing may fail, and nothing come out."""
    count = len(p.outs)
    for missing in [set(range(count)), *([{i} for i in range(count)] if count > 1 else [])]:
        outs = tuple([without_gradient(o) if i in missing else o for i, o in enumerate(p.rerun())])
        zeros = tuple([wrap(np.zeros(o._a.shape, o._a.dtype)) for o in outs])
        which = "any output" if len(missing) == count else p.output_name(min(missing))
        advice = f"The backward was run without a gradient for {which}. check_undefined_grad=False leaves this check out."
        try:
            found = grad(outs, p.wanted, zeros, allow_unused=True)
        except RuntimeError as e:
            raise error(GradcheckError, "Expected backward function to handle undefined output grads.", hint=f"{advice}\n  It raised: {e}") from e
        for j, g in enumerate(found):
            if g is not None and not (g._a == 0).all():
                raise error(
                    GradcheckError,
                    "Expected all input grads to be undefined or zero when all output grads are undefined or zero.",
                    hint=f"The gradient for {p.input_name(j)} isn't zero. {advice}",
                )


def undefined_tangents(p: Problem) -> None:
    """An input without a tangent must count as one whose tangent is zero."""
    from .. import forward_ad

    draw = Uniform()
    with forward_ad.dual_level():
        args = list(p.args)
        for i, x in zip(p.wanted_at, p.wanted):
            args[i] = forward_ad.make_dual(x.detach(), random_like(x, draw))
        for j, (i, x) in enumerate(zip(p.wanted_at, p.wanted)):
            tangents = []
            for plain in (forward_ad.make_dual(x.detach(), wrap(np.zeros_like(x._a))), x.detach()):
                outs = output_tensors(p.func(*args[:i], plain, *args[i + 1 :]))
                tangents.append([forward_ad.unpack_dual(outs[k])[1] for k in p.seen_at])
            for o, (zero, none) in enumerate(zip(*tangents)):
                if zero is not None and none is not None and not close(zero._a, none._a, 1e-5, 1e-8).all():
                    raise error(
                        GradcheckError,
                        f"Mismatch in tangent values for output with index: {p.seen_at[o]} when input: {x!r} has an undefined tangent value. "
                        f" Got: {zero!r} but expected: {none!r}",
                        hint=f"A tangent of zeros and none at all for {p.input_name(j)} must give the same.",
                    )


# ---- batches ------------------------------------------------------------------------------------------------------
def random_like(t: Tensor, draw: Uniform) -> Tensor:
    a = 2 * draw(t._a.size) - 1
    if is_complex(t):
        a = a + 1j * (2 * draw(t._a.size) - 1)
    return wrap(np.asarray(a).reshape(t._a.shape).astype(t._a.dtype))


def stacked(tensors: Any) -> Tensor:
    return wrap(np.stack([t._a for t in tensors]))


def batched_gradients(p: Problem) -> None:
    """Two backward passes one by one and as a batch."""
    for o, out in enumerate(p.outs):

        def backward(v: Tensor) -> tuple[Tensor, ...]:
            found = grad((out,), p.wanted, (v,), retain_graph=True, allow_unused=True)
            return tuple([zeros_like(x) if g is None else g for g, x in zip(found, p.wanted)])

        compare_batched(p, backward, out, "check_batched_grad", lambda j: f"For output {o} and input {j}:")


def batched_tangents(p: Problem) -> None:
    """Two tangents one by one and as a batch."""
    from .. import forward_ad

    for j, x in enumerate(p.wanted):

        def forward(tangent: Tensor) -> tuple[Tensor, ...]:
            with forward_ad.dual_level():
                args = [a.detach() if isinstance(a, Tensor) else a for a in p.args]
                args[p.wanted_at[j]] = forward_ad.make_dual(x.detach(), tangent)
                duals = [forward_ad.unpack_dual(out) for out in as_tuple(p.func(*args)) if out is not None]
                return tuple([zeros_like(value) if its is None else its for value, its in duals])

        compare_batched(p, forward, x, "check_batched_forward_grad", lambda o: f"For output {o} and input {j}:")


def zeros_like(t: Tensor) -> Tensor:
    return wrap(np.zeros(t._a.shape, t._a.dtype))


def compare_batched(p: Problem, derivative: Any, like: Tensor, option: str, name: Any) -> None:
    from ..transforms.vmap import vmap

    draw = Uniform()
    vectors = [random_like(like, draw) for _ in range(2)]
    expected = [stacked(each) for each in zip(*[derivative(v) for v in vectors])]
    advice = f"{option}=False leaves this check out."
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="There is a performance drop")
        try:
            found = vmap(derivative)(stacked(vectors))
        except RuntimeError as e:
            raise error(GradcheckError, f"While computing batched gradients, got: {e}", hint=advice) from e
    for k, (got, right) in enumerate(zip(found, expected)):
        if not close(got._a, right._a, 1e-5, 1e-8).all():
            raise error(
                GradcheckError, f"{name(k)}\nunder vmap the derivative differs from those one by one.\n\nGot:\n{got!r}\n\nExpected:\n{right!r}", hint=advice
            )
