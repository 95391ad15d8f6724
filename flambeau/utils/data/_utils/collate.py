"""Collating: a list of samples becomes one sample of batches."""

from __future__ import annotations

import copy
import numbers
from collections.abc import Callable, Mapping, MutableMapping, MutableSequence, Sequence
from typing import Any

import numpy as np

import flambeau
from flambeau import Tensor

__all__ = ["collate", "default_collate", "default_collate_fn_map", "default_convert"]

ERROR = "default_collate: batch must contain tensors, numpy arrays, numbers, dicts or lists; found {}"
Rules = dict[Any, Callable[..., Any]]


def collate(batch: Any, *, collate_fn_map: Rules | None = None) -> Any:
    """Collates a list of samples by the rule of the samples' type; containers are collated entry by entry.

    `collate_fn_map` maps a type, or a tuple of types, to `rule(batch, collate_fn_map=...)`.

    >>> collate([{"a": 1}, {"a": 2}], collate_fn_map={int: lambda batch, collate_fn_map: sum(batch)})
    {'a': 3}
    """
    first = batch[0]
    kind = type(first)
    if collate_fn_map is not None:
        rule = collate_fn_map.get(kind) or next(
            (fn for of, fn in collate_fn_map.items() if isinstance(first, of)), None
        )
        if rule is not None:
            return rule(batch, collate_fn_map=collate_fn_map)

    def column(samples: Any) -> Any:
        return collate(samples, collate_fn_map=collate_fn_map)

    if isinstance(first, Mapping):
        return _rebuilt_mapping(first, {key: column([sample[key] for sample in batch]) for key in first})
    if isinstance(first, tuple) and hasattr(first, "_fields"):
        return kind(*map(column, zip(*batch)))
    if isinstance(first, Sequence):
        if any(len(sample) != len(first) for sample in batch):
            raise RuntimeError("each element in list of batch should be of equal size")
        columns = [column(samples) for samples in zip(*batch)]
        return columns if isinstance(first, tuple) else _rebuilt_sequence(first, columns)
    raise TypeError(ERROR.format(kind))


def collate_tensor(batch: Any, *, collate_fn_map: Rules | None = None) -> Tensor:
    return flambeau.stack(tuple(batch), 0)


def collate_array(batch: Any, *, collate_fn_map: Rules | None = None) -> Any:
    if batch[0].dtype.kind in "SaUO":
        raise TypeError(ERROR.format(batch[0].dtype))
    return collate([flambeau.as_tensor(array) for array in batch], collate_fn_map=collate_fn_map)


def collate_scalar(batch: Any, *, collate_fn_map: Rules | None = None) -> Tensor:
    return flambeau.as_tensor(batch)


def collate_float(batch: Any, *, collate_fn_map: Rules | None = None) -> Tensor:
    return flambeau.tensor(batch, dtype=flambeau.float64)


def collate_int(batch: Any, *, collate_fn_map: Rules | None = None) -> Tensor:
    return flambeau.tensor(batch)


def collate_text(batch: Any, *, collate_fn_map: Rules | None = None) -> Any:
    return batch


default_collate_fn_map: Rules = {
    Tensor: collate_tensor,
    np.ndarray: collate_array,
    (np.bool_, np.number, np.object_): collate_scalar,
    float: collate_float,
    int: collate_int,
    str: collate_text,
    bytes: collate_text,
}


def default_collate(batch: Any) -> Any:
    """Stacks the tensors, arrays and numbers of a list of samples, keeping the containers around them.

    >>> default_collate([(1, "a"), (2, "b")])
    [tensor([1, 2]), ('a', 'b')]
    """
    return collate(batch, collate_fn_map=default_collate_fn_map)


def default_convert(data: Any) -> Any:
    """Makes tensors of the NumPy arrays in a sample, keeping the containers around them and all else.

    >>> import numpy
    >>> default_convert({"x": numpy.array([1, 2]), "name": "a"})
    {'x': tensor([1, 2]), 'name': 'a'}
    """
    if isinstance(data, Tensor | str | bytes | numbers.Number) and not isinstance(data, np.generic):
        return data
    if isinstance(data, np.ndarray):
        return data if data.dtype.kind in "SaUO" else flambeau.as_tensor(data)
    if isinstance(data, np.generic):
        return data if isinstance(data, np.str_ | np.bytes_) else flambeau.as_tensor(data)
    if isinstance(data, Mapping):
        return _rebuilt_mapping(data, {key: default_convert(data[key]) for key in data})
    if isinstance(data, tuple):
        parts = [default_convert(part) for part in data]
        return type(data)(*parts) if hasattr(data, "_fields") else parts
    if isinstance(data, Sequence):
        return _rebuilt_sequence(data, [default_convert(part) for part in data])
    return data


def _rebuilt_mapping(like: Mapping[Any, Any], entries: dict[Any, Any]) -> Any:
    """A mapping of the type of `like` with these entries: a changed copy keeps what else such a type holds."""
    try:
        if not isinstance(like, MutableMapping):
            return type(like)(entries)  # type: ignore[call-arg]
        clone: Any = copy.copy(like)
        clone.update(entries)
        return clone
    except TypeError:
        return entries


def _rebuilt_sequence(like: Sequence[Any], parts: list[Any]) -> Any:
    try:
        if not isinstance(like, MutableSequence):
            return type(like)(parts)  # type: ignore[call-arg]
        clone: Any = copy.copy(like)
        for i, part in enumerate(parts):
            clone[i] = part
        return clone
    except TypeError:
        return parts
