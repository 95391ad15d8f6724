"""The backward pass as a function of its own, for ``gradgradcheck``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...core.dtypes import FLOAT
from ...core.tensor import Tensor, wrap
from ..engine import grad
from .problem import as_tuple, differentiable, is_complex, numbered
from .vectors import Uniform


class Backward:
    """(inputs, grad_outputs) ↦ the gradients of the inputs, those that are None left out."""

    def __init__(self, func: Callable[..., Any], inputs: Any, grad_outputs: Any, not_contiguous: bool) -> None:
        self.func = func
        inputs = as_tuple(inputs)
        self.count = len(inputs)
        if grad_outputs is None:
            grad_outputs = random_like(differentiable(func(*inputs)), not_contiguous)
        self.arguments: tuple[Any, ...] = inputs + as_tuple(grad_outputs)
        # Forward mode gives detached inputs: which ones require grad is kept here.
        self.requiring = {i for i, t in enumerate(self.arguments) if isinstance(t, Tensor) and t._rg}

    def __call__(self, *args: Any) -> tuple[Tensor, ...]:
        return self._gradients(args, True)

    def probe(self, *args: Any) -> tuple[Tensor, ...]:
        """The same without a graph of its own, for central differences."""
        return self._gradients(args, False)

    def argument_name(self, i: int) -> str:
        """In messages."""
        inputs = self.count
        return numbered("input", i, inputs) if i < inputs else numbered("grad_output", i - inputs, len(self.arguments) - inputs)

    def output_name(self, i: int, count: int) -> str:
        return numbered("grad_input", i, count)

    def _gradients(self, args: tuple[Any, ...], create_graph: bool) -> tuple[Tensor, ...]:
        args = tuple([t.requires_grad_() if i in self.requiring else t for i, t in enumerate(args)])
        inputs, grad_outputs = args[: self.count], args[self.count :]
        wanted = [t for i, t in enumerate(inputs) if i in self.requiring]
        outputs = differentiable(self.func(*inputs))
        found = grad(outputs, wanted, grad_outputs, create_graph=create_graph, allow_unused=True) if outputs else ()
        return tuple([g for g in found if g is not None])


def random_like(outputs: tuple[Tensor, ...], not_contiguous: bool) -> tuple[Tensor, ...]:
    """A tensor that requires grad for each output: uniform in [-1, 1], from a generator of gradcheck's own."""
    draw = Uniform()
    made = []
    for o in outputs:
        a = 2 * draw(o._a.size) - 1
        if is_complex(o):
            a = a + 1j * (2 * draw(o._a.size) - 1)
        a = np.asarray(a).reshape(o._a.shape).astype(o._a.dtype if o.dtype.category >= FLOAT else np.float64)
        if not_contiguous and a.ndim:
            a = np.repeat(a, 2, axis=-1)[..., ::2]
        t = wrap(a)
        t._rg = True
        made.append(t)
    return tuple(made)
