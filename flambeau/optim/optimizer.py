"""Optimizer: parameter groups, state, and how both are saved; what every optimiser stands on."""

from __future__ import annotations

import functools
import warnings
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable
from copy import deepcopy
from itertools import chain
from typing import Any

import numpy as np

import flambeau as fl
from flambeau.autograd.changes import announce, open_contexts
from flambeau.core.errors import error
from flambeau.core.tensor import Tensor
from flambeau.utils.hooks import RemovableHandle

__all__ = ["Optimizer", "register_optimizer_step_post_hook", "register_optimizer_step_pre_hook"]

StateDict = dict[str, Any]
_global_optimizer_pre_hooks: dict[int, Callable] = OrderedDict()
_global_optimizer_post_hooks: dict[int, Callable] = OrderedDict()


class _RequiredParameter:
    """The default of an option that has none."""

    def __repr__(self) -> str:
        return "<required parameter>"


required = _RequiredParameter()


def _add(registry: dict, hook: Callable, prepend: bool = False) -> RemovableHandle:
    handle = RemovableHandle(registry)
    registry[handle.id] = hook
    if prepend:
        registry.move_to_end(handle.id, last=False)  # type: ignore[attr-defined]
    return handle


def register_optimizer_step_pre_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """Call `hook(optimizer, args, kwargs)` before the step of every optimiser."""
    return _add(_global_optimizer_pre_hooks, hook)


def register_optimizer_step_post_hook(hook: Callable[..., None]) -> RemovableHandle:
    """Call `hook(optimizer, args, kwargs)` after the step of every optimiser."""
    return _add(_global_optimizer_post_hooks, hook)


def _hooked(step: Callable[..., Any]) -> Callable[..., Any]:
    """`step` with the hooks around it."""

    @functools.wraps(step)
    def run(self: Optimizer, *args: Any, **kwargs: Any) -> Any:
        if open_contexts:
            for group in self.param_groups:
                for p in group["params"]:
                    announce(p)
        if not (
            self._optimizer_step_pre_hooks
            or self._optimizer_step_post_hooks
            or _global_optimizer_pre_hooks
            or _global_optimizer_post_hooks
        ):
            return step(self, *args, **kwargs)
        # hooks are given `self` among the arguments, as PyTorch does
        given: tuple = (self, *args)
        for hook in chain(_global_optimizer_pre_hooks.values(), self._optimizer_step_pre_hooks.values()):
            changed = hook(self, given, kwargs)
            if changed is not None:
                if not (isinstance(changed, tuple) and len(changed) == 2):
                    raise error(
                        RuntimeError,
                        f"{step} must return None or a tuple of (new_args, new_kwargs), but got {changed}.",
                    )
                given, kwargs = changed
        out = step(*given, **kwargs)
        for hook in chain(self._optimizer_step_post_hooks.values(), _global_optimizer_post_hooks.values()):
            hook(self, given, kwargs)
        return out

    run.hooked = True  # type: ignore[attr-defined]
    return run


class Optimizer:
    """Base class of optimisers: a subclass defines step() and calls this constructor with its defaults.

    `params` is an iterable of tensors, of (name, tensor) pairs, or of dictionaries, each a group with options of
    its own under the keys of `defaults`.
    """

    _hook_dicts = (
        "_optimizer_step_pre_hooks",
        "_optimizer_step_post_hooks",
        "_optimizer_state_dict_pre_hooks",
        "_optimizer_state_dict_post_hooks",
        "_optimizer_load_state_dict_pre_hooks",
        "_optimizer_load_state_dict_post_hooks",
    )
    _optimizer_step_pre_hooks: dict[int, Callable]
    _optimizer_step_post_hooks: dict[int, Callable]

    def __init__(self, params: Any, defaults: dict[str, Any]) -> None:
        self.defaults = defaults
        for name in self._hook_dicts:
            setattr(self, name, OrderedDict())
        self._patch_step_function()
        if isinstance(params, Tensor):
            raise error(
                TypeError,
                "params argument given to the optimizer should be an iterable of Tensors or dicts, "
                f"but got {params.type()}",
                hint="put the tensor in a list",
            )
        self.state: defaultdict[Any, Any] = defaultdict(dict)
        self.param_groups: list[dict[str, Any]] = []
        groups = list(params)
        if not groups:
            raise error(ValueError, "optimizer got an empty parameter list")
        if not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        for group in groups:
            self.add_param_group(group)

    def _patch_step_function(self) -> None:
        """Put the hooks around the class's step, once."""
        cls = type(self)
        if not getattr(cls.step, "hooked", False):
            cls.step = _hooked(cls.step)  # type: ignore[method-assign]

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update the parameters once; `closure` computes the loss and the gradients again."""
        raise NotImplementedError

    def __getstate__(self) -> dict[str, Any]:
        return {"defaults": self.defaults, "state": self.state, "param_groups": self.param_groups}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        for name in self._hook_dicts:
            self.__dict__.setdefault(name, OrderedDict())
        self._patch_step_function()
        self.defaults.setdefault("differentiable", False)

    def __repr__(self) -> str:
        text = type(self).__name__ + " ("
        for i, group in enumerate(self.param_groups):
            text += f"\nParameter Group {i}\n"
            for key in sorted(group):
                if key != "params":
                    text += f"    {key}: {group[key]}\n"
        return text + ")"

    # ------------------------------------------------------------------ hooks

    def register_step_pre_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call `hook(optimizer, args, kwargs)` before each step; it may return new (args, kwargs)."""
        return _add(self._optimizer_step_pre_hooks, hook)

    def register_step_post_hook(self, hook: Callable[..., None]) -> RemovableHandle:
        """Call `hook(optimizer, args, kwargs)` after each step."""
        return _add(self._optimizer_step_post_hooks, hook)

    def register_state_dict_pre_hook(self, hook: Callable[..., None], prepend: bool = False) -> RemovableHandle:
        """Call `hook(optimizer)` before state_dict()."""
        return _add(self._optimizer_state_dict_pre_hooks, hook, prepend)

    def register_state_dict_post_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        """Call `hook(optimizer, state_dict)` after state_dict(); what it returns replaces it."""
        return _add(self._optimizer_state_dict_post_hooks, hook, prepend)

    def register_load_state_dict_pre_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        """Call `hook(optimizer, state_dict)` before loading; what it returns replaces the state_dict."""
        return _add(self._optimizer_load_state_dict_pre_hooks, hook, prepend)

    def register_load_state_dict_post_hook(
        self, hook: Callable[..., None], prepend: bool = False
    ) -> RemovableHandle:
        """Call `hook(optimizer)` after loading."""
        return _add(self._optimizer_load_state_dict_post_hooks, hook, prepend)

    # ------------------------------------------------------------------ saving

    def state_dict(self) -> StateDict:
        """{"state": state by the parameter's number, "param_groups": options, the parameters as numbers}."""
        for hook in self._optimizer_state_dict_pre_hooks.values():
            hook(self)
        number: dict[int, int] = {}
        groups = []
        start = 0
        for group in self.param_groups:
            for i, p in enumerate(group["params"], start):
                number.setdefault(id(p), i)
            packed = {k: v for k, v in group.items() if k != "params"}
            packed["params"] = [number[id(p)] for p in group["params"]]
            start += len(packed["params"])
            groups.append(packed)
        state = {(number[id(k)] if isinstance(k, Tensor) else k): v for k, v in self.state.items()}
        result: StateDict = {"state": state, "param_groups": groups}
        for hook in self._optimizer_state_dict_post_hooks.values():
            changed = hook(self, result)
            if changed is not None:
                result = changed
        return result

    def load_state_dict(self, state_dict: StateDict) -> None:
        """Take back what state_dict() gave, the tensors in the dtype of their parameters.

        Raises:
            ValueError: another number of groups, or of parameters in one. The optimiser is then unchanged.
        """
        state_dict = state_dict.copy()
        for hook in self._optimizer_load_state_dict_pre_hooks.values():
            changed = hook(self, state_dict)
            if changed is not None:
                state_dict = changed
        groups = self.param_groups
        saved = deepcopy(state_dict["param_groups"])
        if len(groups) != len(saved):
            raise error(
                ValueError,
                "loaded state dict has a different number of parameter groups",
                hint=f"the optimizer has {len(groups)}, the state dict {len(saved)}",
            )
        for i, (group, old) in enumerate(zip(groups, saved, strict=True)):
            if len(group["params"]) != len(old["params"]):
                raise error(
                    ValueError,
                    "loaded state dict contains a parameter group that doesn't match the size of "
                    "optimizer's group",
                    hint=f"group {i}: the optimizer has {len(group['params'])} parameters, "
                    f"the state dict {len(old['params'])}",
                )
        ids = chain.from_iterable(old["params"] for old in saved)
        by_id = dict(zip(ids, chain.from_iterable(group["params"] for group in groups), strict=True))
        state: defaultdict[Any, Any] = defaultdict(dict)
        for key, value in state_dict["state"].items():
            if key in by_id:
                state[by_id[key]] = _cast(by_id[key], value)
            else:
                state[key] = value
        for group, new in zip(groups, saved, strict=True):
            new["params"] = group["params"]
            if "param_names" in group and "param_names" not in new:
                new["param_names"] = group["param_names"]
        self.__setstate__({"state": state, "param_groups": saved})
        for hook in self._optimizer_load_state_dict_post_hooks.values():
            hook(self)

    # ------------------------------------------------------------------ gradients and groups

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients of all parameters, or zero them."""
        for group in self.param_groups:
            for p in group["params"]:
                grad = p._grad
                if grad is None:
                    continue
                if set_to_none:
                    p._grad = None
                    continue
                if grad.grad_fn is not None:
                    grad.detach_()
                else:
                    grad.requires_grad_(False)
                grad.zero_()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group: {"params": tensors, and any options}. Layers thawed during training come this way."""
        if not isinstance(param_group, dict):
            raise error(TypeError, f"param_group must be a dict, but got {type(param_group)}")
        group = param_group
        given = group["params"]
        if isinstance(given, set):
            raise error(
                TypeError,
                "optimizer parameters need to be organized in ordered collections, but the ordering of tensors "
                "in sets will change between runs. Please use a list instead.",
            )
        given = [given] if isinstance(given, Tensor) else list(given)
        names = [item[0] for item in given if isinstance(item, tuple)]
        tensors = [item[1] if isinstance(item, tuple) else item for item in given]
        if names and len(names) != len(tensors):
            raise error(
                ValueError, "all optimizer params should be with/without names. Some param names are missing"
            )
        for t in tensors:
            if not isinstance(t, Tensor):
                raise error(
                    TypeError,
                    f"optimizer can only optimize Tensors, but one of the params is {type(t).__qualname__}",
                )
            if not (t.is_leaf or t.retains_grad):
                raise error(
                    ValueError, "can't optimize a non-leaf Tensor", hint="make it a leaf with .detach() first"
                )
        for name, default in self.defaults.items():
            if default is required and name not in group:
                raise error(
                    ValueError, f"parameter group didn't specify a value of required optimization parameter {name}"
                )
        own = {id(t) for t in tensors}
        if len(own) != len(tensors):
            warnings.warn(
                "optimizer contains a parameter group with duplicate parameters; in future, this will cause an "
                "error; see github.com/pytorch/pytorch/issues/40967 for more information",
                stacklevel=3,
            )
        for other in self.param_groups:
            if bool(names) != ("param_names" in other):
                which = "with names" if names else "without names"
                raise error(
                    ValueError,
                    "all optimizer param groups should be with/without names. "
                    f"cannot add param group {which} to the optimizer",
                )
            if not own.isdisjoint(id(t) for t in other["params"]):
                raise error(ValueError, "some parameters appear in more than one parameter group")
        group["params"] = tensors
        if names:
            group["param_names"] = names
        for name, default in self.defaults.items():
            group.setdefault(name, default)
        self.param_groups.append(group)


def _cast(param: Tensor, value: Any, key: Any = None) -> Any:
    """A state's tensors in the dtype of their parameter, all but `step`."""
    if isinstance(value, Tensor):
        if key == "step" or not param.is_floating_point():
            return value
        return value.to(dtype=param.dtype, device=param.device)
    if isinstance(value, dict):
        return {k: _cast(param, v, k) for k, v in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, (str, bytes)):
        return type(value)(_cast(param, v) for v in value)  # type: ignore[call-arg]
    return value


class Elementwise(Optimizer):
    """An optimiser that treats each parameter alone: a subclass defines `_update(group)`.

    `foreach` and `fused` choose among PyTorch's implementations; here there is one, and it is fused.
    """

    def __init__(self, params: Any, defaults: dict[str, Any]) -> None:
        for name in ("differentiable", "capturable"):
            if defaults.get(name):
                raise NotImplementedError(f"{type(self).__name__}({name}=True) is not in flambeau")
        if defaults.get("fused") and defaults.get("foreach"):
            raise error(RuntimeError, "`fused` and `foreach` cannot be `True` together.")
        super().__init__(params, defaults)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:
            for name, default in self._group_defaults.items():
                group.setdefault(name, default)
            for p in group["params"]:
                own = self.state.get(p)
                if own and "step" in own and not isinstance(own["step"], Tensor):  # a number in old state_dicts
                    own["step"] = new_step(own["step"])

    # Options that came late and are missing in old state_dicts.
    _group_defaults: dict[str, Any] = {
        "maximize": False,
        "foreach": None,
        "differentiable": False,
    }

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with fl.enable_grad():
                loss = closure()
        for group in self.param_groups:
            self._update(group)
        return loss

    def _update(self, group: dict[str, Any]) -> None:
        raise NotImplementedError


def new_step(value: float = 0.0) -> Tensor:
    """The tensor that counts steps."""
    wide = fl.get_default_dtype() is fl.float64
    return fl.tensor(float(value), dtype=fl.float64 if wide else fl.float32)


def count(step: Tensor) -> float:
    """One more step; how many it makes."""
    a = step._a
    n = a.item() + 1.0
    a[()] = n
    return n


def arrays(p: Tensor, grad: Tensor, *state: Tensor) -> list[np.ndarray]:
    """The arrays of a parameter, its gradient and its state, as a rule takes them: complex ones as pairs of reals."""
    a, g = p._a, grad._a
    if g.dtype is not a.dtype and g.dtype != a.dtype:
        g = g.astype(a.dtype)
    if g.strides != a.strides and a.size > 1024:  # else the kernel would walk one of them against its grain
        g = np.copyto(laid := np.empty_like(a), g) or laid
    found = [a, g, *[s._a for s in state]]
    return [_as_real(x) for x in found] if a.dtype.kind == "c" else found


def _as_real(a: np.ndarray) -> np.ndarray:
    """A view of complex numbers as pairs of reals, whatever the strides."""
    real = a.real.dtype
    return np.ndarray((*a.shape, 2), real, a, 0, (*a.strides, real.itemsize)) if a.flags.c_contiguous else _pairs(a)


def _pairs(a: np.ndarray) -> np.ndarray:
    return np.lib.stride_tricks.as_strided(a.real, (*a.shape, 2), (*a.strides, a.real.itemsize))


def number(value: Any) -> Any:
    """A learning rate or beta that may be a tensor, as a Python number."""
    return value if value.__class__ is float else value.item() if isinstance(value, Tensor) else value


def check_lr(lr: Any) -> None:
    """Raise unless a learning rate is one nonnegative number."""
    if isinstance(lr, Tensor) and lr.numel() != 1:
        raise error(ValueError, "Tensor lr must be 1-element")
    if not 0.0 <= lr:
        raise error(ValueError, f"Invalid learning rate: {lr}")


def check(**values: float) -> None:
    """Raise unless all options, named as PyTorch's message names them, are nonnegative."""
    for name, value in values.items():
        if not 0.0 <= value:
            shown = {"eps": "epsilon"}.get(name, name)
            raise error(ValueError, f"Invalid {shown} value: {value}")


def check_betas(betas: tuple[Any, Any]) -> None:
    """Raise unless both betas lie in [0, 1)."""
    for i, beta in enumerate(betas):
        if not 0.0 <= beta < 1.0:
            raise error(ValueError, f"Invalid beta parameter at index {i}: {beta}")
