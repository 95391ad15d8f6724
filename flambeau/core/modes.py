"""The one question that an operator asks before it runs: ``mode()``.

It answers ``True`` (gradients are recorded, nothing else is on), ``False`` (they are not, nothing else is on) or a
``Modes`` object, which is the slow path: inference mode, saved-tensor hooks, and whatever else wants to see every
operator. A ContextVar keeps it per thread (and per asyncio task), at a third of the price of ``threading.local``.
"""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable
from contextvars import ContextVar, Token
from typing import Any, TypeVar

from .errors import error

F = TypeVar("F", bound=Callable[..., Any])


class Modes:
    """Every mode at once, immutable: changing one makes a new object.

    ``transformed`` says whether an operator's call must go through ``autograd/transforms/interpret.py``: because a dual level of
    forward mode is open, a vmap is running, or somebody watches operators. The other modes change what a call records.
    """

    __slots__ = (
        "grad", "inference", "pack_hooks", "hooks_disabled", "anomaly", "forward", "batch", "watch", "transformed", "enabled", "below", "outer",
    )  # fmt: skip
    grad: bool  # whether calls are recorded: never in inference mode
    enabled: bool  # whether recording is switched on, as is_grad_enabled says
    inference: bool
    pack_hooks: Any  # (pack, unpack) of the innermost saved_tensors_hooks, or None
    hooks_disabled: str | None  # the message of disable_saved_tensors_hooks
    anomaly: Any  # None, or whether detect_anomaly also looks for nan
    forward: int  # how many dual levels of forward mode are open
    batch: tuple[Any, ...]  # the vmaps that are running, outermost first
    watch: Any  # called in an operator's stead: watch(op, args, params)
    below: Any  # the modes without transformations, and
    outer: Any  # (a vmap, the modes outside it): kept by autograd/transforms, which ask at every operator

    DEFAULTS: dict[str, Any] = {
        "grad": True, "inference": False, "pack_hooks": None, "hooks_disabled": None, "anomaly": None, "forward": 0,
        "batch": (), "watch": None,
    }  # fmt: skip

    def __init__(self, **fields: Any) -> None:
        for name, value in (self.DEFAULTS | fields).items():
            setattr(self, name, value)
        self.enabled = self.grad
        self.grad = self.enabled and not self.inference
        self.transformed = bool(self.forward or self.batch or self.watch is not None)

    def replace(self, **changes: Any) -> Any:
        """The modes with some changed: a bool where nothing but recording is left."""
        # written out, not a loop over the fields: transformations do this several times at every operator
        new = object.__new__(Modes)
        new.enabled, new.inference, new.pack_hooks, new.hooks_disabled = self.enabled, self.inference, self.pack_hooks, self.hooks_disabled
        new.anomaly, new.forward, new.batch, new.watch = self.anomaly, self.forward, self.batch, self.watch
        for name, value in changes.items():
            setattr(new, "enabled" if name == "grad" else name, value)
        new.transformed = bool(new.forward or new.batch or new.watch is not None)
        if not (
            new.transformed or new.inference or new.pack_hooks is not None or new.hooks_disabled is not None or new.anomaly is not None
        ):
            return new.enabled
        new.grad = new.enabled and not new.inference
        return new


_var: ContextVar[Any] = ContextVar("flambeau.modes", default=True)
mode = _var.get
set_mode = _var.set
reset_mode = _var.reset

# Whether the function of a reverse-mode transformation is running: its tape is its own affair, so that inference tensors
# may be saved on it.
transforming: ContextVar[bool] = ContextVar("flambeau.transforming", default=False)


def full() -> Modes:
    """The present modes as an object, whichever form ``mode()`` has."""
    m = mode()
    return m if isinstance(m, Modes) else Modes(grad=m)


def with_grad(enabled: bool) -> Any:
    """The present modes with gradient recording on or off."""
    m = mode()
    return enabled if m is True or m is False else m.replace(grad=enabled)


def is_grad_enabled() -> bool:
    """Whether operators on tensors that require grad are recorded (in inference mode they never are)."""
    m = mode()
    return m if m is True or m is False else m.enabled


class _ModeContext:
    """A context manager that is a decorator too, also of generators (each resumption runs in the mode)."""

    def _target(self) -> Any:
        raise NotImplementedError

    def __enter__(self) -> None:
        # A stack, so that one object may be entered again while it is active.
        self.__dict__.setdefault("_tokens", []).append(set_mode(self._target()))

    def __exit__(self, *exc: Any) -> None:
        token = self.__dict__["_tokens"].pop()
        try:
            reset_mode(token)
        except ValueError:  # entered in another context (a generator finalised elsewhere)
            set_mode(True if token.old_value is Token.MISSING else token.old_value)

    def clone(self) -> _ModeContext:
        return self.__class__()

    def __call__(self, fn: F) -> F:
        if inspect.isclass(fn):
            warnings.warn(
                "Decorating classes is deprecated and will be disabled in future versions. You should only decorate functions or "
                "methods. To preserve the current behavior of class decoration, you can directly decorate the `__init__` method "
                "and nothing else.",
                FutureWarning,
                stacklevel=2,
            )
            cls: Any = fn
            cls.__init__ = self(cls.__init__)
            return fn
        if inspect.isgeneratorfunction(fn):
            return self._wrap_generator(fn)

        @functools.wraps(fn)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with self.clone():
                return fn(*args, **kwargs)

        return wrapped  # type: ignore[return-value]

    def _wrap_generator(self, fn: Any) -> Any:
        @functools.wraps(fn)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            gen = fn(*args, **kwargs)
            try:
                with self.clone():
                    value = gen.send(None)
                while True:
                    try:
                        sent = yield value
                    except GeneratorExit:
                        with self.clone():
                            gen.close()
                        raise
                    except BaseException as e:
                        with self.clone():
                            value = gen.throw(e)
                    else:
                        with self.clone():
                            value = gen.send(sent)
            except StopIteration as stop:
                return stop.value

        return wrapped


class no_grad(_ModeContext):
    """Context manager and decorator under which nothing is recorded.

    >>> import flambeau as torch
    >>> x = torch.ones(1, requires_grad=True)
    >>> with torch.no_grad():
    ...     (x * 2).requires_grad
    False
    """

    def __new__(cls, orig_func: Any = None) -> Any:
        self = super().__new__(cls)
        return self if orig_func is None else self(orig_func)

    def _target(self) -> Any:
        return with_grad(False)


class enable_grad(_ModeContext):
    """Context manager and decorator under which recording is on, also inside ``no_grad``."""

    def __new__(cls, orig_func: Any = None) -> Any:
        self = super().__new__(cls)
        return self if orig_func is None else self(orig_func)

    def _target(self) -> Any:
        return with_grad(True)


class set_grad_enabled(_ModeContext):
    """Switch recording on or off: as a call (at once), a context manager or a decorator.

    >>> import flambeau as torch
    >>> with torch.set_grad_enabled(False):
    ...     torch.is_grad_enabled()
    False
    """

    def __init__(self, mode: bool) -> None:
        if not isinstance(mode, bool):
            raise error(TypeError, f"set_grad_enabled(): argument 'enabled' (position 1) must be bool, not {type(mode).__name__}")
        self.mode = mode
        self.prev = is_grad_enabled()
        set_mode(with_grad(mode))

    def _target(self) -> Any:
        return with_grad(self.mode)

    def __exit__(self, *exc: Any) -> None:
        self.__dict__["_tokens"].pop()
        set_mode(with_grad(self.prev))

    def clone(self) -> _ModeContext:
        return self.__class__(self.mode)

    def __call__(self, fn: F) -> F:
        set_mode(with_grad(self.prev))  # as a decorator it must not switch the mode here and now
        return super().__call__(fn)

    def __repr__(self) -> str:
        return f"torch.autograd.grad_mode.set_grad_enabled(mode={self.mode})"


class inference_mode(_ModeContext):
    """Like ``no_grad``, and further: tensors made under it can never take part in a graph.

    They have no version counter, may be changed in place only under the mode, and refuse to be saved for a backward
    pass (``clone()`` outside gives a usual tensor). ``inference_mode(False)`` inside switches it off, and recording on.

    >>> import flambeau as torch
    >>> with torch.inference_mode():
    ...     y = torch.ones(2) * 2
    >>> y.is_inference(), y.requires_grad
    (True, False)
    """

    mode: bool

    def __new__(cls, mode: Any = True) -> Any:
        if isinstance(mode, bool):
            self = super().__new__(cls)
            self.mode = mode
            return self
        return cls()(mode)

    def __init__(self, mode: Any = True) -> None:
        pass

    def _target(self) -> Any:
        return full().replace(grad=not self.mode, inference=self.mode)

    def clone(self) -> _ModeContext:
        return self.__class__(self.mode)


def is_inference_mode_enabled() -> bool:
    """Whether ``inference_mode`` is on."""
    m = mode()
    return m is not True and m is not False and m.inference
