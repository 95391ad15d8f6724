"""Hooks on modules: the global registries, and the call that runs every hook in order."""

from __future__ import annotations

import functools
import warnings
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from flambeau.core.errors import error
from flambeau.core.tensor import Tensor
from flambeau.nn.modules._backward_hook import BackwardHook
from flambeau.utils.hooks import RemovableHandle

global_backward_pre_hooks: dict[int, Callable] = OrderedDict()
global_backward_hooks: dict[int, Callable] = OrderedDict()
global_forward_pre_hooks: dict[int, Callable] = OrderedDict()
global_forward_hooks: dict[int, Callable] = OrderedDict()
global_forward_hooks_always_called: dict[int, bool] = OrderedDict()
global_forward_hooks_with_kwargs: dict[int, bool] = OrderedDict()
global_buffer_registration_hooks: dict[int, Callable] = OrderedDict()
global_module_registration_hooks: dict[int, Callable] = OrderedDict()
global_parameter_registration_hooks: dict[int, Callable] = OrderedDict()
# None until a global backward hook is registered, then whether those are full ones.
global_backward_is_full: list[bool | None] = [None]


def add_hook(registry: dict, hook: Callable, prepend: bool = False, marks: tuple = ()) -> RemovableHandle:
    """Put `hook` into `registry`, and its id into each of `marks`; the handle removes it from all."""
    handle = RemovableHandle(registry, extra_dict=list(marks)) if marks else RemovableHandle(registry)
    registry[handle.id] = hook
    if prepend:
        registry.move_to_end(handle.id, last=False)  # type: ignore[attr-defined]
    return handle


def register_module_buffer_registration_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """Call `hook(module, name, buffer)` at every register_buffer; what it returns replaces the buffer."""
    return add_hook(global_buffer_registration_hooks, hook)


def register_module_module_registration_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """Call `hook(module, name, child)` whenever a child is registered; what it returns replaces the child."""
    return add_hook(global_module_registration_hooks, hook)


def register_module_parameter_registration_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """Call `hook(module, name, param)` at every register_parameter; what it returns replaces it."""
    return add_hook(global_parameter_registration_hooks, hook)


def register_module_forward_pre_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """Call `hook(module, args)` before the forward of every module."""
    return add_hook(global_forward_pre_hooks, hook)


def register_module_forward_hook(
    hook: Callable[..., Any], *, with_kwargs: bool = False, always_call: bool = False
) -> RemovableHandle:
    """Call `hook(module, args[, kwargs], output)` after the forward of every module."""
    marks = (global_forward_hooks_with_kwargs, global_forward_hooks_always_called)
    handle = add_hook(global_forward_hooks, hook, marks=marks)
    if with_kwargs:
        global_forward_hooks_with_kwargs[handle.id] = True
    if always_call:
        global_forward_hooks_always_called[handle.id] = True
    return handle


def _claim_global(full: bool) -> None:
    if global_backward_is_full[0] is (not full):
        raise error(
            RuntimeError,
            "Cannot use both regular backward hooks and full backward hooks as a global Module hook. "
            "Please use only one of them.",
        )
    global_backward_is_full[0] = full


def register_module_backward_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """The old, inexact form of register_module_full_backward_hook."""
    _claim_global(False)
    return add_hook(global_backward_hooks, hook)


def register_module_full_backward_pre_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """Call `hook(module, grad_output)` before the backward of every module."""
    return add_hook(global_backward_pre_hooks, hook)


def register_module_full_backward_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """Call `hook(module, grad_input, grad_output)` after the backward of every module."""
    _claim_global(True)
    return add_hook(global_backward_hooks, hook)


class WrappedHook:
    """A hook, with a weak reference to the module it is called with; survives pickling."""

    def __init__(self, hook: Callable, module: Any = None) -> None:
        self.hook = hook
        functools.update_wrapper(self, hook)
        self.with_module = module is not None
        if module is not None:
            self.module = weakref.ref(module)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self.with_module:
            return self.hook(*args, **kwargs)
        module = self.module()
        if module is None:
            raise error(RuntimeError, "You are trying to call the hook of a dead Module!")
        return self.hook(module, *args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        return {"hook": self.hook, "module": self.module() if self.with_module else None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["hook"], state["module"])  # type: ignore[misc]


def backward_hooks_of(module: Any) -> tuple[list[Callable], list[Callable]]:
    """The (full, old-style) backward hooks that apply to `module`, global ones first."""
    full: list[Callable] = []
    old: list[Callable] = []
    for is_full, hooks in (
        (global_backward_is_full[0], global_backward_hooks),
        (module._is_full_backward_hook, module._backward_hooks),
    ):
        if is_full is not None:
            (full if is_full else old).extend(hooks.values())
    return full, old


def _run_pre_hooks(module: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    for hook_id, hook in (*global_forward_pre_hooks.items(), *module._forward_pre_hooks.items()):
        if hook_id in module._forward_pre_hooks_with_kwargs:
            result = hook(module, args, kwargs)
            if result is None:
                continue
            if not (isinstance(result, tuple) and len(result) == 2):
                raise error(
                    RuntimeError,
                    f"forward pre-hook must return None or a tuple of (new_args, new_kwargs), but got {result}.",
                )
            args, kwargs = result
        else:
            result = hook(module, args)
            if result is not None:
                args = result if isinstance(result, tuple) else (result,)
    return args, kwargs


def _first_tensor(value: Any) -> Tensor:
    while not isinstance(value, Tensor):
        value = next(v for v in value.values() if isinstance(v, Tensor)) if isinstance(value, dict) else value[0]
    return value


def call_with_hooks(module: Any, args: tuple, kwargs: dict) -> Any:
    """module.forward(*args, **kwargs) with all hooks of the module and the global ones, in PyTorch's order."""
    result = None
    done: set[int] = set()

    def run(hook_id: int, hook: Callable) -> None:
        nonlocal result
        if hook_id in module._forward_hooks_with_kwargs or hook_id in global_forward_hooks_with_kwargs:
            changed = hook(module, args, kwargs, result)
        else:
            changed = hook(module, args, result)
        if changed is not None:
            result = changed

    try:
        args, kwargs = _run_pre_hooks(module, args, kwargs)

        pre = [*global_backward_pre_hooks.values(), *module._backward_pre_hooks.values()]
        full, old = backward_hooks_of(module)
        backward = None
        if full or pre:
            backward = BackwardHook(module, full, pre)
            args = backward.setup_input_hook(args)

        result = module.forward(*args, **kwargs)

        for hook_id, hook in (*global_forward_hooks.items(), *module._forward_hooks.items()):
            done.add(hook_id)
            run(hook_id, hook)

        if backward is not None:
            if not isinstance(result, (Tensor, tuple)):
                warnings.warn(
                    "For backward hooks to be called, module output should be a Tensor or a tuple of Tensors "
                    f"but received {type(result)}",
                    stacklevel=3,
                )
            result = backward.setup_output_hook(result)
        if old:
            grad_fn = _first_tensor(result).grad_fn
            if grad_fn is not None:
                for hook in old:
                    grad_fn.register_hook(WrappedHook(hook, module))
                warn_if_inexact(args, result, grad_fn)
        return result
    except Exception:
        for where, hooks, always in (
            ("global module", global_forward_hooks, global_forward_hooks_always_called),
            ("module", module._forward_hooks, module._forward_hooks_always_called),
        ):
            for hook_id, hook in hooks.items():
                if hook_id in always and hook_id not in done:
                    try:
                        run(hook_id, hook)
                    except Exception as e:
                        warnings.warn(
                            f"{where} forward hook with ``always_call=True`` raised an exception "
                            f"that was silenced as another error was raised in forward: {e}",
                            stacklevel=3,
                        )
        raise


_FULL = "Please use register_full_backward_hook to get the documented behavior."
_OLD = "is deprecated and will be removed in future versions. This hook will be missing"


def warn_if_inexact(inputs: Any, result: Any, grad_fn: Any) -> None:
    """Old-style backward hooks see one node only: warn where that node is not the whole module."""
    what = _inexactness(inputs, result, grad_fn)
    if what:
        warnings.warn(what, FutureWarning, stacklevel=4)


def _inexactness(inputs: Any, result: Any, grad_fn: Any) -> str | None:
    results = (result,) if isinstance(result, Tensor) else result
    if not (isinstance(results, tuple) and all(isinstance(r, Tensor) for r in results)):
        return (
            "Using non-full backward hooks on a Module that does not return a single Tensor or a tuple of "
            f"Tensors {_OLD} some of the grad_output. {_FULL}"
        )
    given = (inputs,) if isinstance(inputs, Tensor) else inputs
    if not (isinstance(given, tuple) and all(isinstance(i, Tensor) for i in given)):
        return (
            "Using non-full backward hooks on a Module that does not take as input a single Tensor or a "
            f"tuple of Tensors {_OLD} some of the grad_input. {_FULL}"
        )
    nodes = {r.grad_fn for r in results if r.grad_fn is not None}
    if not nodes or (len(nodes) == 1 and grad_fn not in nodes):
        return (
            f"Using a non-full backward hook when outputs are nested in python data structure {_OLD} "
            "some grad_output."
        )
    if len(nodes) > 1:
        return (
            "Using a non-full backward hook when outputs are generated by different autograd Nodes "
            f"{_OLD} some grad_output. {_FULL}"
        )
    if {i.grad_fn for i in given if i.grad_fn is not None} != {n[0] for n in grad_fn.next_functions}:
        return (
            "Using a non-full backward hook when the forward contains multiple autograd Nodes "
            f"{_OLD} some grad_input. {_FULL}"
        )
    return None
