"""state_dict and load_state_dict: a Module's half that turns it into a flat dictionary and back."""

from __future__ import annotations

import warnings
from collections import OrderedDict, namedtuple
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any

import flambeau as fl
from flambeau.core.errors import error
from flambeau.core.tensor import Tensor
from flambeau.nn.modules._hooks import WrappedHook, add_hook
from flambeau.nn.parameter import Parameter, is_lazy
from flambeau.utils.hooks import RemovableHandle

_EXTRA_STATE_KEY_SUFFIX = "_extra_state"


class _IncompatibleKeys(namedtuple("IncompatibleKeys", ["missing_keys", "unexpected_keys"])):
    """The keys that the model has and the state lacks, and the other way round."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "<All keys matched successfully>" if not any(self) else super().__repr__()

    __str__ = __repr__


class _Plan:
    """What a load will do, so that nothing is done before all of it is known to fit."""

    def __init__(self) -> None:
        self.copies: list[tuple[Tensor, Tensor, str]] = []
        self.assigns: list[tuple[Any, str, Tensor]] = []
        self.extras: list[tuple[Any, Any]] = []

    def targets(self) -> list[Tensor]:
        return [target for target, _, _ in self.copies]

    def run(self, error_msgs: list[str]) -> None:
        with fl.no_grad():
            for target, value, key in self.copies:
                try:
                    target.copy_(value)
                except Exception as ex:
                    error_msgs.append(
                        f'While copying the parameter named "{key}", whose dimensions in the model are '
                        f"{target.size()} and whose dimensions in the checkpoint are {value.size()}, "
                        f"an exception occurred : {ex.args}."
                    )
        for module, name, value in self.assigns:
            setattr(module, name, value)
        for module, state in self.extras:
            module.set_extra_state(state)


# The plan of the load_state_dict that is running; a _load_from_state_dict called outside one loads at once.
_plan: ContextVar[_Plan | None] = ContextVar("load_state_dict", default=None)


class StateMixin:
    """The methods of Module about state_dict."""

    _version: int = 1

    def get_extra_state(self) -> Any:
        """Override, with set_extra_state, to store anything picklable in the state_dict."""
        raise error(RuntimeError, f"{type(self).__name__} does not define get_extra_state()")

    def set_extra_state(self, state: Any) -> None:
        """Take back what get_extra_state gave."""
        raise error(RuntimeError, f"{type(self).__name__} does not define set_extra_state()")

    def _has_extra(self, method: str) -> bool:
        return getattr(type(self), method) is not getattr(StateMixin, method)

    def _register_state_dict_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        if getattr(hook, "_from_public_api", False):
            raise error(
                RuntimeError,
                "Cannot register the same function as the state dict post hook that was previously "
                "registered via register_state_dict_post_hook",
            )
        return add_hook(self._state_dict_hooks, hook)

    def register_state_dict_post_hook(self, hook: Callable[..., None]) -> RemovableHandle:
        """Call `hook(module, state_dict, prefix, local_metadata)` at the end of state_dict()."""
        hook._from_public_api = True  # type: ignore[attr-defined]
        return add_hook(self._state_dict_hooks, hook)

    def register_state_dict_pre_hook(self, hook: Callable[..., None]) -> RemovableHandle:
        """Call `hook(module, prefix, keep_vars)` at the start of state_dict()."""
        return add_hook(self._state_dict_pre_hooks, hook)

    def _register_load_state_dict_pre_hook(
        self, hook: Callable[..., None], with_module: bool = False
    ) -> RemovableHandle:
        return add_hook(self._load_state_dict_pre_hooks, WrappedHook(hook, self if with_module else None))

    def register_load_state_dict_pre_hook(self, hook: Callable[..., None]) -> RemovableHandle:
        """Call `hook(module, state_dict, prefix, local_metadata, strict, missing, unexpected, errors)` first."""
        return self._register_load_state_dict_pre_hook(hook, with_module=True)

    def register_load_state_dict_post_hook(self, hook: Callable[..., None]) -> RemovableHandle:
        """Call `hook(module, incompatible_keys)` after loading; it may change the two lists in place."""
        return add_hook(self._load_state_dict_post_hooks, hook)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        for name, param in self._parameters.items():
            if param is not None:
                destination[prefix + name] = param if keep_vars else param.detach()
        for name, buf in self._buffers.items():
            if buf is not None and name not in self._non_persistent_buffers_set:
                destination[prefix + name] = buf if keep_vars else buf.detach()
        if self._has_extra("get_extra_state"):
            destination[prefix + _EXTRA_STATE_KEY_SUFFIX] = self.get_extra_state()

    def state_dict(
        self, *args: Any, destination: Any = None, prefix: str = "", keep_vars: bool = False
    ) -> dict[str, Any]:
        """All parameters and persistent buffers by their dotted names, sharing memory with the module.

        >>> import flambeau
        >>> list(flambeau.nn.Linear(2, 3).state_dict())
        ['weight', 'bias']
        """
        if args:
            warnings.warn(
                "Positional args are being deprecated, use kwargs instead. Refer to "
                "https://pytorch.org/docs/main/generated/torch.nn.Module.html#torch.nn.Module.state_dict"
                " for details.",
                FutureWarning,
                stacklevel=2,
            )
            destination = args[0] if destination is None else destination
            prefix = args[1] if len(args) > 1 and prefix == "" else prefix
            keep_vars = args[2] if len(args) > 2 and keep_vars is False else keep_vars
        if destination is None:
            destination = OrderedDict()
            destination._metadata = OrderedDict()
        local_metadata = {"version": self._version}
        if hasattr(destination, "_metadata"):
            destination._metadata[prefix[:-1]] = local_metadata
        for hook in self._state_dict_pre_hooks.values():
            hook(self, prefix, keep_vars)
        self._save_to_state_dict(destination, prefix, keep_vars)
        for name, module in self._modules.items():
            if module is not None:
                module.state_dict(destination=destination, prefix=f"{prefix}{name}.", keep_vars=keep_vars)
        for hook in self._state_dict_hooks.values():
            changed = hook(self, destination, prefix, local_metadata)
            if changed is not None:
                if getattr(hook, "_from_public_api", False):
                    raise error(RuntimeError, "state_dict post-hook must return None")
                destination = changed
        return destination

    def _load_from_state_dict(
        self,
        state_dict: Any,
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """This module's own parameters and buffers, not its children's. Override to read old formats."""
        for hook in self._load_state_dict_pre_hooks.values():
            hook(state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)

        outer = _plan.get()
        plan = outer or _Plan()
        local = {k: v for k, v in self._parameters.items() if v is not None}
        local.update(
            (k, v)
            for k, v in self._buffers.items()
            if v is not None and k not in self._non_persistent_buffers_set
        )
        assign = local_metadata.get("assign_to_params_buffers", False)
        for name, param in local.items():
            key = prefix + name
            if key in state_dict:
                self._plan_one(plan, name, param, key, state_dict[key], assign, error_msgs)
            elif strict:
                missing_keys.append(key)

        extra_key = prefix + _EXTRA_STATE_KEY_SUFFIX
        if self._has_extra("set_extra_state"):
            if extra_key in state_dict:
                plan.extras.append((self, state_dict[extra_key]))
            elif strict:
                missing_keys.append(extra_key)
        elif strict and extra_key in state_dict:
            unexpected_keys.append(extra_key)

        if strict:
            for key in state_dict:
                if key.startswith(prefix) and key != extra_key:
                    head, dot, _ = key[len(prefix) :].partition(".")
                    if head not in (self._modules if dot else local):
                        unexpected_keys.append(key)
        if outer is None:
            plan.run(error_msgs)

    def _plan_one(
        self, plan: _Plan, name: str, param: Any, key: str, value: Any, assign: bool, error_msgs: list[str]
    ) -> None:
        if not isinstance(value, Tensor):
            error_msgs.append(
                f'While copying the parameter named "{key}", expected torch.Tensor or Tensor-like object '
                f"from checkpoint but received {type(value)}"
            )
            return
        if not is_lazy(param):
            if param.dim() == 0 and value.dim() == 1 and value.shape[0] == 1:  # how PyTorch 0.3 stored scalars
                value = value[0]
            if value.shape != param.shape:
                error_msgs.append(
                    f"size mismatch for {key}: copying a param with shape {value.shape} from checkpoint, "
                    f"the shape in current model is {param.shape}."
                )
                return
        if not assign:
            plan.copies.append((param, value, key))
            return
        if isinstance(param, Parameter):
            if not isinstance(value, Parameter):
                value = Parameter(value, requires_grad=param.requires_grad)
            else:
                value.requires_grad_(param.requires_grad)
        plan.assigns.append((self, name, value))

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> _IncompatibleKeys:
        """Copy (or with `assign`, put) the tensors of `state_dict` into this module and its children.

        All problems are found before anything is copied: where this raises, the module is as it was, which
        is more than PyTorch promises.

        Raises:
            RuntimeError: missing, unexpected (both unless `strict=False`) or misshapen entries.
            TypeError: `state_dict` is not a mapping.
        """
        if not isinstance(state_dict, Mapping):
            raise error(TypeError, f"Expected state_dict to be dict-like, got {type(state_dict)}.")
        missing: list[str] = []
        unexpected: list[str] = []
        messages: list[str] = []
        metadata = getattr(state_dict, "_metadata", None)
        state = OrderedDict(state_dict)
        if metadata is not None:
            state._metadata = metadata  # type: ignore[attr-defined]

        def look(module: Any, part: Any, prefix: str) -> None:
            local_metadata = {} if metadata is None else metadata.get(prefix[:-1], {})
            if assign:
                local_metadata = {**local_metadata, "assign_to_params_buffers": True}
            module._load_from_state_dict(part, prefix, local_metadata, True, missing, unexpected, messages)
            for name, child in module._modules.items():
                if child is not None:
                    below = f"{prefix}{name}."
                    look(child, {k: v for k, v in part.items() if k.startswith(below)}, below)
            if module._load_state_dict_post_hooks:
                hooked.append(module)

        def run_post_hooks() -> None:
            keys = _IncompatibleKeys(missing, unexpected)
            for module in hooked:
                for hook in module._load_state_dict_post_hooks.values():
                    if hook(module, keys) is not None:
                        raise error(
                            AssertionError,
                            "Hooks registered with ``register_load_state_dict_post_hook`` are not expected to "
                            "return new values, if incompatible_keys need to be modified, it should be done "
                            "inplace.",
                        )

        hooked: list[Any] = []
        plan = _Plan()
        token = _plan.set(plan)
        try:
            look(self, state, "")
        finally:
            _plan.reset(token)

        failing = bool(messages) or (strict and bool(missing or unexpected))
        # Post-hooks expect loaded values and may forgive keys: so load for them, with a way back.
        if not failing or (hooked and not messages):
            before = [(t, t.clone()) for t in plan.targets()] if failing else []
            assigned = [(m, n, getattr(m, n)) for m, n, _ in plan.assigns] if failing else []
            plan.run(messages)
            run_post_hooks()
            if messages or (strict and (missing or unexpected)):
                with fl.no_grad():
                    for tensor, old in before:
                        tensor.copy_(old)
                for module, name, old in assigned:
                    setattr(module, name, old)

        if strict:
            for what, keys in (("Missing", missing), ("Unexpected", unexpected))[::-1]:
                if keys:
                    listed = ", ".join(f'"{k}"' for k in keys)
                    messages.insert(0, f"{what} key(s) in state_dict: {listed}. ")
        if messages:
            raise error(
                RuntimeError,
                "Error(s) in loading state_dict for {}:\n\t{}".format(type(self).__name__, "\n\t".join(messages)),
                hint=_hint(state, missing, unexpected),
            )
        return _IncompatibleKeys(missing, unexpected)


def _hint(state: Mapping[str, Any], missing: list[str], unexpected: list[str]) -> str:
    for prefix in ("module.", "_orig_mod.", "model."):
        if unexpected and all(k.startswith(prefix) for k in unexpected) and len(unexpected) == len(state):
            return (
                f"every key starts with {prefix!r}: strip it with "
                f"flambeau.nn.modules.utils.consume_prefix_in_state_dict_if_present(state_dict, {prefix!r})"
            )
    if (missing or unexpected) and len(unexpected) < len(state):
        return "the module is unchanged; strict=False loads the entries that match"
    return "the module is unchanged; the state_dict was made by a model of another architecture or size"
