"""Large pointwise work on broadcast or strided arrays: the loops around an inner loop, in threads.

NumPy would call the inner loop for one row after the other, on one thread. Here the rows are shared out.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import cache
from math import prod
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from flambeau.kernels import layout, memory, threads
from flambeau.kernels.lower_llvm import Machine
from flambeau.kernels.lower_reduce import entry

#: Part of the cache key: raise it when the code generated here changes.
VERSION = 1

#: The job, an array of int64: these, then the outer axes' sizes, then for each operand its address, its
#: inner step and its outer steps.
JOB = ("threads", "units", "function", "data", "operands", "axes", "inner")


def _module(name: str, machine: Machine) -> str:
    at = len(JOB)
    fields = "\n".join(
        f"  %{field}.at = getelementptr i64, ptr %job, i64 {i}\n  %{field} = load i64, ptr %{field}.at"
        for i, field in enumerate(JOB)
    )
    return f"""
define internal void @work(ptr %job, i64 %low, i64 %high) #0 {{
entry:
  %args = alloca [32 x ptr]
  %steps = alloca [32 x i64]
  %dims = alloca i64
{fields}
  %call = inttoptr i64 %function to ptr
  %config = inttoptr i64 %data to ptr
  store i64 %inner, ptr %dims
  %sizes = getelementptr i64, ptr %job, i64 {at}
  %first = getelementptr i64, ptr %sizes, i64 %axes
  %record = add i64 %axes, 2
  %any = icmp slt i64 %low, %high
  br i1 %any, label %unit, label %end
unit:
  %u = phi i64 [%low, %entry], [%u.next, %run]
  br label %start
start:
  %k = phi i64 [0, %unit], [%k.next, %start]
  %k.at = mul i64 %k, %record
  %base.at = getelementptr i64, ptr %first, i64 %k.at
  %base = load ptr, ptr %base.at
  %step.at = getelementptr i64, ptr %base.at, i64 1
  %step = load i64, ptr %step.at
  %arg = getelementptr ptr, ptr %args, i64 %k
  store ptr %base, ptr %arg
  %to = getelementptr i64, ptr %steps, i64 %k
  store i64 %step, ptr %to
  %k.next = add i64 %k, 1
  %k.more = icmp slt i64 %k.next, %operands
  br i1 %k.more, label %start, label %axis.test
axis.test:
  %d = phi i64 [%axes, %start], [%d.next, %axis.done]
  %rest = phi i64 [%u, %start], [%rest.next, %axis.done]
  %d.next = sub i64 %d, 1
  %d.any = icmp sge i64 %d.next, 0
  br i1 %d.any, label %axis, label %run
axis:
  %size.at = getelementptr i64, ptr %sizes, i64 %d.next
  %size = load i64, ptr %size.at
  %index = srem i64 %rest, %size
  %rest.next = sdiv i64 %rest, %size
  %outer.at = add i64 %d.next, 2
  br label %move
move:
  %j = phi i64 [0, %axis], [%j.next, %move]
  %j.at = mul i64 %j, %record
  %j.step.at = add i64 %j.at, %outer.at
  %o.at = getelementptr i64, ptr %first, i64 %j.step.at
  %o = load i64, ptr %o.at
  %by = mul i64 %o, %index
  %a.at = getelementptr ptr, ptr %args, i64 %j
  %a = load ptr, ptr %a.at
  %a.next = getelementptr i8, ptr %a, i64 %by
  store ptr %a.next, ptr %a.at
  %j.next = add i64 %j, 1
  %j.more = icmp slt i64 %j.next, %operands
  br i1 %j.more, label %move, label %axis.done
axis.done:
  br label %axis.test
run:
  call void %call(ptr %args, ptr %dims, ptr %steps, ptr %config)
  %u.next = add i64 %u, 1
  %u.more = icmp slt i64 %u.next, %high
  br i1 %u.more, label %unit, label %end
end:
  ret void
}}
{entry(name, machine)}
attributes #0 = {{ nounwind }}"""


@cache
def _driver() -> Callable:
    from flambeau.kernels import jit

    address = jit.function(f"broadcast {VERSION}", _module)
    return ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address)


#: Rows shorter than this are taken several at a time, to be about so long.
ROW = 256


def _lengthen(views: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
    """The same work in longer rows, where rows are short: rows without gaps joined, repeated ones copied."""
    *outer, rows, inner = (1, 1, *views[0].shape)
    group = max((g for g in range(1, ROW // inner + 1) if rows % g == 0), default=1)
    if group < 4:
        return views
    whole = (*outer[2:], rows // group, group * inner)
    longer = []
    for view in views:
        *steps, step, unit = view.strides
        if step == inner * unit:
            longer.append(as_strided(view, whole, (*steps, group * step, unit)))
        elif step == 0:
            row = np.tile(view[..., :1, :], group)
            longer.append(as_strided(row, whole, (*row.strides[:-2], 0, row.itemsize)))
        else:
            return views
    return longer


def _alike(arrays: Sequence[Any]) -> bool:
    """Whether the arrays, numbers aside, lie as the first does: then NumPy makes one loop of them."""
    first = arrays[0]
    return type(first) is not np.ndarray or all(
        type(a) is not np.ndarray or not a.ndim or (a.shape == first.shape and a.strides == first.strides)
        for a in arrays
    )


def driver(ufunc: Callable, address: int, dtypes: Sequence[np.dtype], inputs: int) -> Callable:
    """`ufunc`, whose inner loop is at `address`, with threads for any broadcasting of large arrays."""
    outputs = len(dtypes) - inputs
    flags: list[Any] = [["readonly"]] * inputs + [["writeonly", "allocate", "no_broadcast"]] * outputs
    parallel, serial = ctypes.addressof(threads.CONFIG), ctypes.addressof(threads.SERIAL)

    def plain(arrays: Sequence[Any], out: Any) -> Any:
        return ufunc(*arrays) if out is None else ufunc(*arrays, out=out)

    def function(*arrays: Any, out: Any = None) -> Any:
        if _alike(arrays):
            return plain(arrays, out)
        operands = [a if isinstance(a, np.ndarray) else np.asarray(a, d) for a, d in zip(arrays, dtypes, strict=False)]
        if out is None and max(a.ndim for a in operands) > 3:
            operands = list(layout.agree(operands))
            if _alike(operands):
                return plain(operands, out)
            shape = np.broadcast_shapes(*(a.shape for a in operands))
            like = next((a for a in operands if a.shape == shape and layout.channels_last(a)), None)
            if like is not None:
                out = tuple(np.empty_like(like, dtype=d) for d in dtypes[inputs:])
        outs = (None,) * outputs if out is None or out is Ellipsis else out if isinstance(out, tuple) else (out,)
        if any(a.dtype != d for a, d in zip((*operands, *outs), dtypes, strict=True) if a is not None):
            return plain(arrays, out)
        for o in outs:
            if o is not None and any(a is not o and np.may_share_memory(a, o) for a in (*operands, *outs)):
                return plain(arrays, out)
        with np.nditer((*operands, *outs), ["external_loop", "zerosize_ok"], flags, list(dtypes), order="K") as walk:
            views: Sequence[np.ndarray] = walk.itviews
            results = walk.operands[inputs:]
        shape = views[0].shape
        if shape and prod(shape):
            views = _lengthen(views)
            *outer, inner = shape = views[0].shape
            units = prod(outer)
            share = units >= 4 * threads.CONFIG[0] and prod(shape) >= 16_384
            job = [
                threads.CONFIG[0] if share else 1,
                units,
                address,
                serial if share else parallel,
                len(views),
                len(outer),
            ]
            job += [inner, *outer]
            for view in views:
                *steps, step = view.strides
                job += [memory.address(view), step, *steps]
            _driver()((ctypes.c_int64 * len(job))(*job))
        return results[0] if outputs == 1 else results

    function.__name__ = ufunc.__name__
    return function
