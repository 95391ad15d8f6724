"""Matrix products by oneDNN: any batch, either operand transposed by its strides, bias and sum fused."""

from __future__ import annotations

import numpy as np

from flambeau.kernels.onednn import library
from flambeau.kernels.onednn.primitives import (
    Plan,
    PrimitiveDescriptor,
    Unsupported,
    aligned,
    cached,
    describe,
    describe_any,
    describe_array,
    reorder_descriptor,
)

#: Dimensions that a memory descriptor can have.
MAX_RANK = 12


def matmul(a, b, bias, out, accumulate: bool) -> bool:
    """Write `a @ b + bias` to `out`, or add it; False where oneDNN cannot."""
    key = ("matmul", a.shape, a.strides, b.shape, b.strides, a.dtype, out.shape, out.strides,
           bias is not None and bias.strides, accumulate)
    plan = cached(key, _build, a, b, bias, out, accumulate)
    if plan is None:
        return False
    if type(plan) is tuple:
        copy_a, copy_b = plan
        return matmul(np.ascontiguousarray(a) if copy_a else a, np.ascontiguousarray(b) if copy_b else b,
                      bias, out, accumulate)
    if bias is None:
        plan(a, b, out)
    else:
        plan(a, b, out, bias)
    return True


def _build(a, b, bias, out, accumulate):
    copies = not _direct(a), not _direct(b)
    if any(copies):
        return copies
    turned = out.shape[-1] != 1 and out.strides[-1] != out.itemsize     # oneDNN has only its reference for that
    if turned or not _direct(out) or 0 in out.strides or (bias is not None and bias.strides != (bias.itemsize,)):
        raise Unsupported("layout of the result or the bias")
    batch = _merge_batch(a, b, out)
    rows, inner, columns = a.shape[-2], a.shape[-1], b.shape[-1]
    (ra, ca), (rb, cb), (ro, co) = (
        _matrix_strides(x.shape[-2:], [s // x.itemsize for s in x.strides[-2:]]) for x in (a, b, out))
    if len(batch) == 1:
        count, sa, sb, so = batch[0]
        if sb == 0 and sa == rows * ra and so == rows * ro:     # one matrix on the right: more rows, no batch
            rows, batch = rows * count, []
    if len(batch) + 2 > MAX_RANK:
        raise Unsupported("rank")
    sizes = [n for n, *_ in batch]

    def operand(shape, strides, position):
        batch_strides = [entry[position] for entry in batch]
        # a broadcast dimension has size 1 for oneDNN; its stride is never used
        broadcast = [n if s else 1 for n, s in zip(sizes, batch_strides, strict=True)]
        used = [s or shape[0] * shape[1] for s in batch_strides]
        return describe(broadcast + shape, used + strides, a.dtype)

    source = operand([rows, inner], [ra, ca], 1)
    weights = operand([inner, columns], [rb, cb], 2)
    target = operand([rows, columns], [ro, co], 3)
    arguments = [(library.ARG_SRC, source), (library.ARG_WEIGHTS, weights), (library.ARG_DST, target)]
    row = None
    if bias is not None:
        lead = len(sizes) + 1
        row = describe([1] * lead + [columns], [columns] * lead + [1], a.dtype)
        arguments.append((library.ARG_BIAS, row))
    descriptor = PrimitiveDescriptor("matmul", source, weights, row, target, add=accumulate)
    return Plan(descriptor, arguments)


def packed(b, rows: int, accumulate: bool):
    """A function (a, out) that writes `a @ b` to `out`, or adds it, for dense a (rows, inner) and out; or None.

    b is copied once into the layout that oneDNN likes best: for many products with one matrix.
    """
    entry = cached(("packed", b.shape, b.strides, b.dtype, rows, accumulate), _build_packed, b, rows, accumulate)
    if entry is None:
        return None
    plan, reorder, size = entry
    weights = aligned(size)
    reorder(b, weights)
    return lambda a, out: plan(a, weights, out)


def _build_packed(b, rows, accumulate):
    inner, columns = b.shape
    source = describe([rows, inner], [inner, 1], b.dtype)
    target = describe([rows, columns], [columns, 1], b.dtype)
    descriptor = PrimitiveDescriptor(
        "matmul", source, describe_any(b.shape, b.dtype), None, target, add=accumulate)
    plain, chosen = describe_array(b), descriptor.memory(library.QUERY_WEIGHTS)
    plan = Plan(descriptor, [(library.ARG_SRC, source), (library.ARG_WEIGHTS, chosen), (library.ARG_DST, target)])
    reorder = Plan(reorder_descriptor(plain, chosen), [(library.ARG_SRC, plain), (library.ARG_DST, chosen)])
    return plan, reorder, chosen.size


def _direct(x) -> bool:
    """Whether oneDNN is fast on the array as it lies: rows or columns dense, and no stride that it lacks."""
    item = x.itemsize
    if any(s < 0 or s % item for s in x.strides):
        return False
    (rows, columns), (r, c) = x.shape[-2:], x.strides[-2:]
    return ((columns == 1 or c == item) and (rows == 1 or r >= columns * item)) or (
        (rows == 1 or r == item) and (columns == 1 or c >= rows * item))


def _matrix_strides(shape, strides) -> list[int]:
    """The strides with those of dimensions of size 1 (which mean nothing) made such as a dense matrix has."""
    (rows, columns), (r, c) = shape, strides
    if columns == 1:
        c = 1
        r = 1 if rows == 1 else r
    elif rows == 1:
        r = columns if c == 1 else 1
    return [r, c]


def _merge_batch(a, b, out) -> list[tuple[int, int, int, int]]:
    """The batch as few (size, stride in a, in b, in out) as these allow; stride 0 where one is broadcast."""
    sizes = out.shape[:-2]

    def strides(x):
        missing = len(sizes) - (x.ndim - 2)
        own = [0 if n == 1 else s // x.itemsize for n, s in zip(x.shape[:-2], x.strides[:-2], strict=True)]
        return [0] * missing + own

    merged: list[tuple[int, int, int, int]] = []
    for n, *steps in zip(sizes, strides(a), strides(b), strides(out), strict=True):
        if n == 1:
            continue
        if merged and all(outer == n * step for outer, step in zip(merged[-1][1:], steps, strict=True)):
            merged[-1] = (merged[-1][0] * n, *steps)
        else:
            merged.append((n, *steps))
    return merged
