"""Selective checkpoints: of the operators in a checkpointed function, a policy says whose results are kept."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any

from ..._aten import OpOverload, OpOverloadPacket, aten, overload_of
from ...core.errors import error
from ...core.modes import no_grad
from .watching import Result, Watching, perform, replay


class CheckpointPolicy(enum.Enum):
    """What a policy function answers: keep the operator's result, or compute it again.

    ``MUST_`` and ``PREFER_`` are alike here, and what is to be offloaded to the CPU is there already: recomputed as in
    PyTorch's eager mode.
    """

    MUST_SAVE = 0
    PREFER_SAVE = 1
    MUST_RECOMPUTE = 2
    PREFER_RECOMPUTE = 3
    MUST_CPU_OFFLOAD = 4
    PREFER_CPU_OFFLOAD = 5


SAVES = (CheckpointPolicy.MUST_SAVE, CheckpointPolicy.PREFER_SAVE, True)

# Not shown to policies. flambeau's detach() is no operator.
SAC_IGNORED_OPS = {aten.detach.default}


class SelectiveCheckpointContext:
    """First argument of a policy function. ``op_output``: the operator's result; ``is_recompute``: always False, since
    the policy is asked in the forward pass alone.

    >>> from flambeau.utils.checkpoint import SelectiveCheckpointContext
    >>> SelectiveCheckpointContext(is_recompute=False).op_output is None
    True
    """

    def __init__(self, *, is_recompute: bool, op_output: Any = None) -> None:
        self.is_recompute, self.op_output = is_recompute, op_output


RECOMPUTE = object()
CONSUMED = object()
Store = dict[OpOverload, list[Any]]  # for each operator, for each of its calls: a Result, or one of the two above


class Keeping(Watching):
    """The first run: asks the policy, keeps results."""

    def __init__(self, policy: Callable[..., Any], store: Store) -> None:
        super().__init__()
        self.policy, self.store = policy, store

    def see(self, op: Any, args: tuple[Any, ...], params: dict[str, Any]) -> Any:
        name = overload_of(op, args)
        if name in SAC_IGNORED_OPS:
            return op(*args, **params)
        out, result = perform(op, args, params)
        with no_grad():
            answer = self.policy(SelectiveCheckpointContext(is_recompute=False, op_output=out), name, *args, **params)
        self.store.setdefault(name, []).append(result if answer in SAVES and result is not None else RECOMPUTE)
        return out


class HandingBack(Watching):
    """The second run: gives what was kept, computes the rest."""

    def __init__(self, store: Store, allow_cache_entry_mutation: bool) -> None:
        super().__init__()
        self.store, self.allow_mutation = store, allow_cache_entry_mutation
        self.seen: dict[OpOverload, int] = {}

    def __enter__(self) -> Watching:
        self.seen = {}
        return super().__enter__()

    def see(self, op: Any, args: tuple[Any, ...], params: dict[str, Any]) -> Any:
        name = overload_of(op, args)
        if name in SAC_IGNORED_OPS:
            return op(*args, **params)
        index = self.seen.get(name, 0)
        self.seen[name] = index + 1
        entries = self.store.get(name)
        if entries is None or index >= len(entries):
            which = str(name) if entries is None else f"{name} invocation index {index}"
            raise error(
                RuntimeError,
                f"{which} encountered during backward but not found in storage.",
                hint="The checkpointed function runs other operators in the backward pass than it did in the forward pass: "
                "it is not deterministic, or depends on state that has changed.",
            )
        entry = entries[index]
        if entry is RECOMPUTE:
            return op(*args, **params)
        if entry is CONSUMED:
            raise error(
                RuntimeError,
                "Trying to backward an extra time. You are only allowed to backward once on any region computed under "
                "selective activation checkpoint.",
            )
        result: Result = entry
        if not self.allow_mutation and result.changed():
            raise error(
                RuntimeError,
                "Tensor cached during selective activation checkpoint has been mutated",
                hint=f"It is a result of {name}: keep another operator's result, or change it out of place.",
            )
        entries[index] = CONSUMED
        return replay(op, args, params, result)


def create_selective_checkpoint_contexts(
    policy_fn_or_list: Any, allow_cache_entry_mutation: bool = False
) -> tuple[Watching, Watching]:
    """For ``checkpoint(..., context_fn=...)``: keep the results of chosen operators, so that they aren't computed twice.

    Args:
        policy_fn_or_list: ``policy(ctx, op, *args, **kwargs)`` gives a ``CheckpointPolicy`` (or whether to keep); or a
            list of operators to keep. Operators go by PyTorch's names, ``torch.ops.aten.mm.default``; ``args`` are those
            of flambeau's operator: of ``addmm`` from a Linear the input, the weight (not transposed) and the bias.
        allow_cache_entry_mutation: give a result back also if it was changed in place.

    >>> import functools, flambeau as torch
    >>> from flambeau.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts
    >>> keep_products = functools.partial(create_selective_checkpoint_contexts, [torch.ops.aten.mm.default])
    >>> x = torch.eye(2, requires_grad=True)
    >>> y = checkpoint(lambda t: (t @ t).sigmoid().sum(), x, use_reentrant=False, context_fn=keep_products)
    >>> y.backward(); x.grad
    tensor([[0.3932, 0.5000],
            [0.5000, 0.3932]])
    """
    if isinstance(policy_fn_or_list, list):
        for op in policy_fn_or_list:
            if not isinstance(op, OpOverload):
                raise error(
                    ValueError,
                    f"Expected op in `op_list` to be an OpOverload but got: {op} of type {type(op)}.",
                    hint=f"Name one of its overloads: torch.ops.{op}.{op.overloads()[0]}" if isinstance(op, OpOverloadPacket) else None,
                )
        kept = frozenset(policy_fn_or_list)

        def policy(ctx: SelectiveCheckpointContext, op: OpOverload, *args: Any, **kwargs: Any) -> CheckpointPolicy:
            return CheckpointPolicy.MUST_SAVE if op in kept else CheckpointPolicy.PREFER_RECOMPUTE

    elif callable(policy_fn_or_list):
        policy = policy_fn_or_list
    else:
        raise error(TypeError, "policy_fn_or_list must be either a function or a list of ops.")
    store: Store = {}
    return Keeping(policy, store), HandingBack(store, allow_cache_entry_mutation)
