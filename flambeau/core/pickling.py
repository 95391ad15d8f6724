"""How tensors are copied deeply and pickled: storage sharing inside one pickle is kept by NumPy's own pickling."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from .errors import error
from .tensor import Tensor, new_tensor, storage_array


def rebuild(cls: type, a: np.ndarray, requires_grad: bool, attrs: dict[str, Any] | None) -> Tensor:
    t = new_tensor(cls)
    t._a, t._grad_fn, t._rg = a, None, requires_grad
    if attrs:
        t.__dict__.update(attrs)
    return t


def user_attributes(t: Tensor) -> dict[str, Any]:
    """What a user hung on the tensor; our own fields begin with an underscore and are declared on the class."""
    return {k: v for k, v in t.__dict__.items() if not hasattr(Tensor, k)}


def reduce_tensor(t: Tensor, protocol: int) -> tuple[Any, ...]:
    if t._hooks:
        import warnings

        warnings.warn(
            "backward hooks on a tensor are not serialised", UserWarning, stacklevel=2
        )
    if t._grad_fn is not None and t._rg:
        return rebuild, (type(t), t._viewable(), True, user_attributes(t))
    return rebuild, (type(t), t._viewable(), t._rg, user_attributes(t))


def deepcopy_tensor(t: Tensor, memo: dict[int, Any]) -> Tensor:
    if t._grad_fn is not None:
        raise error(
            RuntimeError,
            "Only Tensors created explicitly by the user (graph leaves) support the deepcopy protocol at the moment.  "
            "If you were attempting to deepcopy a module, this may be because of a torch.nn.utils.weight_norm usage, see "
            "https://github.com/pytorch/pytorch/pull/103001",
            hint="Copy its values with .detach().clone().",
        )
    if id(t) in memo:
        return memo[id(t)]
    root = storage_array(t._viewable())
    if root is t._a:
        a = copy_array(root, memo)
    else:  # a view: copy the storage once, and take the same window of it
        new_root = copy_array(root, memo)
        offset = t._a.__array_interface__["data"][0] - root.__array_interface__["data"][0]
        flat = new_root.reshape(-1, order="A").view(np.uint8)
        a = np.ndarray(t._a.shape, t._a.dtype, flat, offset, t._a.strides) if t._a.size else t._a.copy()
    out = rebuild(type(t), a, t._rg, None)
    memo[id(t)] = out
    if t._grad is not None:
        out._grad = copy.deepcopy(t._grad, memo)
    for k, v in user_attributes(t).items():
        out.__dict__[k] = copy.deepcopy(v, memo)
    return out


def copy_array(a: np.ndarray, memo: dict[int, Any]) -> np.ndarray:
    key = id(a)
    if key not in memo:
        memo[key] = a.copy(order="K")
        memo.setdefault(id(memo), []).append(a)  # keeps the key's id alive
    return memo[key]
