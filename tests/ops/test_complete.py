"""Nothing is left out: every public function and every declared operator is in some test, or in a table with a reason."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from pathlib import Path
from typing import Any

import pytest

from flambeau import ops
from flambeau.autograd.engine import grad
from flambeau.autograd.pointwise import POINTWISE
from flambeau.autograd.primitive import PRIMITIVES, Primitive
from flambeau.ops.public import FUNCTIONS

from .harness import F, OperatorTests, differentiable, tensor
from .variants import first_dtype

HERE = Path(__file__).parent
TESTS = HERE.parent

#: module -> name -> why no test of it
UNTESTED: dict[str, dict[str, str]] = {
    "": {
        "_pack_padded_sequence": "through nn.utils.rnn", "_pad_packed_sequence": "through nn.utils.rnn",
        "_standard_gamma_grad": "the rule of _standard_gamma", "standard_gamma": "_standard_gamma under another name",
        "affine_grid_generator": "nn.functional.affine_grid itself", "default_generator": "an object, in use by every draw",
        "grid_sampler_2d": "grid_sampler itself", "grid_sampler_3d": "grid_sampler itself",
        "native_pixel_shuffle": "pixel_shuffle itself", "native_pixel_unshuffle": "pixel_unshuffle itself",
        "gru": "through nn.GRU", "lstm": "through nn.LSTM", "rnn_relu": "through nn.RNN", "rnn_tanh": "through nn.RNN",
        "rnn_relu_cell": "in a Case, whose name is put together", "rnn_tanh_cell": "in a Case, whose name is put together",
    },
    "nn.functional": {"fractional_max_pool3d": "in a Case, whose name is put together"},
    "linalg": {},
    "special": {},
}
#: operators that no Case reaches -> which test does, or why none
ELSEWHERE: dict[str, str] = {
    **dict.fromkeys(
        "_standard_gamma _standard_gamma_grad bernoulli bernoulli_number_ bernoulli_p bernoulli_tensor_ binomial cauchy_ exponential_ "
        "geometric_ log_normal_ normal_ normal_of_both normal_of_mean normal_of_std poisson random_0 random_1 random_2 uniform_".split(),
        "draws numbers: test_random.py, test_fill.py",
    ),
    **dict.fromkeys("celu_ elu_ hardtanh_ leaky_relu_".split(), "in place: test_activations.py"),
    **dict.fromkeys("fill fill_number_ fill_tensor fill_tensor_ zero_".split(), "in place: test_fill.py, test_inplace.py"),
    **dict.fromkeys("gru_layer lstm_layer rnn_relu_layer rnn_tanh_layer".split(), "layers: tests/nn"),
    **dict.fromkeys(
        "convolution_each convolution_input_grad_each convolution_weight_grad_each layer_norm_each linear_each merge_batch split_batch".split(),
        "inside vmap: tests/func/test_layers.py",
    ),
    **dict.fromkeys("ctc_loss ctc_loss_grad".split(), "takes lists of lengths: test_loss.py"),
    **dict.fromkeys(
        "binary_cross_entropy_weighted_sum binary_cross_entropy_with_logits_weighted_scaled_sum hinge_embedding_loss_sum "
        "margin_ranking_loss_sum".split(),
        "the sum beside a mean that is tested, made by the same function",
    ),
    "FractionalMaxPool2D_1": "made for rank 1 with the others, which have no public function of it",
    **dict.fromkeys(("arg", "isclose"), "inside vmap: test_batched; elsewhere their kernels alone run"),
    **dict.fromkeys(("copy", "copy_over"), "Tensor.copy_: tests/ops/test_convert.py"),
    "div_trunc_int": "integers: test_arithmetic.py and the variants",
    "vdot": "complex numbers: the variants",
}


def words_of(folder: Path) -> set[str]:
    """Names that tests use: attributes, and the words of their strings."""
    found: set[str] = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Attribute):
                found.add(node.attr)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.update(node.value.replace(",", " ").replace(".", " ").split())
    return found


@pytest.mark.parametrize("module", ["", "nn.functional", "linalg", "special"])
def test_every_public_function_is_in_a_test(module: str) -> None:
    tested = set().union(*[words_of(TESTS / d) for d in ("ops", "autograd", "nn", "core")])
    names = {n for n in FUNCTIONS[module].names() if not n.endswith("_")}  # in-place forms: test_inplace.py tries all
    assert sorted(names - tested - set(UNTESTED[module])) == []
    assert sorted(set(UNTESTED[module]) - names) == [], "no longer there"


def every_case() -> list[Any]:
    found = []
    for path in sorted(HERE.glob("test_*.py")):
        module = importlib.import_module(f"{__package__}.{path.stem}")
        for value in list(vars(module).values()):
            if isinstance(value, type) and issubclass(value, OperatorTests):
                found += value.cases
    return found


def test_every_operator_is_in_a_case(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forward, backward, and backward again: which operators run."""
    for m in pkgutil.iter_modules(ops.__path__):
        importlib.import_module(f"flambeau.ops.{m.name}")
    # other tests declare operators of their own
    declared = {name for name, op in PRIMITIVES.items() if op.kernel.__module__.startswith("flambeau")} | {*POINTWISE}
    ran: set[str] = set()
    call = Primitive.__call__

    def noting(self: Primitive, *args: Any, **params: Any) -> Any:
        ran.add(self.name)
        return call(self, *args, **params)

    monkeypatch.setattr(Primitive, "__call__", noting)
    made = [(op, op._kernel) for op in POINTWISE.values()]
    for op in POINTWISE.values():
        op._kernel = None
        op.table.clear()
    for case in every_case():
        arrays = case.arrays(first_dtype(case))
        ts = [tensor(a, case.grad and a.dtype.kind == "f") for a in arrays]
        outs = differentiable(case.fn(F, *ts))
        wanted = [t for t in ts if t._rg]
        if not outs or not wanted:
            continue
        for create in (False, True):
            total = sum([(o * o).sum() for o in differentiable(case.fn(F, *ts))])
            gs = grad([total], wanted, create_graph=create, allow_unused=True) if case.grad else []
        again = [g for g in gs if g is not None and g._rg]
        if again and case.second:
            grad([sum([(g * g).sum() for g in again])], wanted, allow_unused=True)
    ran |= {name for name, op in POINTWISE.items() if op._kernel is not None}
    for op, kernel in made:
        if kernel is not None:
            op._kernel = kernel
    assert sorted(declared - ran - set(ELSEWHERE)) == []
