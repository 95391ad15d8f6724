"""Sequences of different lengths: packed one after the other, or padded to one length."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import flambeau as fl
from flambeau import _VF
from flambeau.core.errors import error
from flambeau.core.tensor import Tensor

__all__ = [
    "PackedSequence",
    "invert_permutation",
    "pack_padded_sequence",
    "pack_sequence",
    "pad_packed_sequence",
    "pad_sequence",
    "unpack_sequence",
    "unpad_sequence",
]


class _Packed(NamedTuple):
    data: Tensor
    batch_sizes: Tensor
    sorted_indices: Tensor | None
    unsorted_indices: Tensor | None


class PackedSequence(_Packed):
    """All first steps, then all second steps, and so on; `batch_sizes` says how many sequences reach each step.

    Made by pack_padded_sequence and pack_sequence; the recurrent layers take it and give it.
    """

    def __new__(
        cls,
        data: Any,
        batch_sizes: Tensor | None = None,
        sorted_indices: Tensor | None = None,
        unsorted_indices: Tensor | None = None,
    ) -> PackedSequence:
        if unsorted_indices is None:
            unsorted_indices = invert_permutation(sorted_indices)
        if batch_sizes is None:
            if not (isinstance(data, (list, tuple)) and len(data) == 2):
                raise error(AssertionError, "Expected data to be a list or tuple of length 2")
            data, batch_sizes = data
        elif batch_sizes.device.type != "cpu":
            raise error(
                ValueError,
                "batch_sizes should always be on CPU. Instances of PackedSequence should never be created "
                "manually. They should be instantiated by functions like pack_sequence and "
                "pack_padded_sequences in nn.utils.rnn.",
            )
        return super().__new__(cls, data, batch_sizes, sorted_indices, unsorted_indices)

    def _map(self, fn: Any) -> PackedSequence:
        return type(self)(fn(self.data), *self[1:])

    def to(self, *args: Any, **kwargs: Any) -> PackedSequence:
        """The same with its data of another dtype or on another device."""
        data = self.data.to(*args, **kwargs)
        return self if data is self.data else self._map(lambda _: data)

    def cpu(self) -> PackedSequence:
        """Move the data to the CPU."""
        return self.to(device="cpu")

    def cuda(self, *args: Any, **kwargs: Any) -> PackedSequence:
        """Move the data to a GPU."""
        return self._map(lambda t: t.cuda(*args, **kwargs))

    def double(self) -> PackedSequence:
        """The data as float64."""
        return self.to(fl.float64)

    def float(self) -> PackedSequence:
        """The data as float32."""
        return self.to(fl.float32)

    def half(self) -> PackedSequence:
        """The data as float16."""
        return self.to(fl.float16)

    def long(self) -> PackedSequence:
        """The data as int64."""
        return self.to(fl.int64)

    def int(self) -> PackedSequence:
        """The data as int32."""
        return self.to(fl.int32)

    def short(self) -> PackedSequence:
        """The data as int16."""
        return self.to(fl.int16)

    def char(self) -> PackedSequence:
        """The data as int8."""
        return self.to(fl.int8)

    def byte(self) -> PackedSequence:
        """The data as uint8."""
        return self.to(fl.uint8)

    def pin_memory(self) -> PackedSequence:
        """The data in pinned memory."""
        return self._map(lambda t: t.pin_memory())

    def is_pinned(self) -> bool:
        """Is the data in pinned memory?"""
        return self.data.is_pinned()

    @property
    def is_cuda(self) -> bool:
        """Is the data on a GPU?"""
        return self.data.is_cuda


def invert_permutation(permutation: Tensor | None) -> Tensor | None:
    """The permutation that undoes this one.

    >>> import flambeau as torch
    >>> invert_permutation(torch.tensor([2, 0, 1]))
    tensor([1, 2, 0])
    """
    if permutation is None:
        return None
    output = fl.empty_like(permutation)
    output.scatter_(0, permutation, fl.arange(0, permutation.numel(), device=permutation.device))
    return output


def pack_padded_sequence(
    input: Tensor, lengths: Any, batch_first: bool = False, enforce_sorted: bool = True
) -> PackedSequence:
    """Pack padded sequences, (T, B, *) or (B, T, *), of these lengths.

    Raises:
        RuntimeError: lengths not positive, too many or too few, or, with `enforce_sorted`, not descending.
    """
    lengths = fl.as_tensor(lengths, dtype=fl.int64)
    order = None
    if not enforce_sorted:
        lengths, order = fl.sort(lengths, descending=True)
        input = input.index_select(0 if batch_first else 1, order)
    data, batch_sizes = _VF._pack_padded_sequence(input, lengths, batch_first)
    return PackedSequence(data, batch_sizes, order, None)


def pad_packed_sequence(
    sequence: PackedSequence,
    batch_first: bool = False,
    padding_value: float = 0.0,
    total_length: int | None = None,
) -> tuple[Tensor, Tensor]:
    """The inverse of pack_padded_sequence: (padded, lengths)."""
    length = sequence.batch_sizes.size(0)
    if total_length is not None:
        if total_length < length:
            raise error(
                ValueError,
                "Expected total_length to be at least the length of the longest sequence in input, but got "
                f"total_length={total_length} and max sequence length being {length}",
            )
        length = total_length
    padded, lengths = _VF._pad_packed_sequence(
        sequence.data, sequence.batch_sizes, batch_first, padding_value, length
    )
    back = sequence.unsorted_indices
    if back is not None:
        return padded.index_select(0 if batch_first else 1, back), lengths[back.cpu()]
    return padded, lengths


def pad_sequence(
    sequences: Iterable[Tensor],
    batch_first: bool = False,
    padding_value: float = 0.0,
    padding_side: str = "right",
) -> Tensor:
    """Stack sequences (L, *) of different lengths into (T, B, *) or, with batch_first, (B, T, *).

    >>> import flambeau as torch
    >>> pad_sequence([torch.ones(2), torch.ones(1)], batch_first=True)
    tensor([[1., 1.],
            [1., 0.]])
    """
    if not isinstance(sequences, Iterable):
        raise error(
            RuntimeError,
            f"pad_sequence: Expected iterable for input sequences, but got arg of type: {type(sequences)}",
        )
    given = tuple(sequences)
    if padding_side not in ("left", "right"):
        raise error(RuntimeError, f"Expected padding_side to be one of left or right, but got {padding_side}.")
    if not given:
        raise error(RuntimeError, "received an empty list of sequences")
    longest = max(s.size(0) for s in given)
    first = given[0]
    trailing = first.shape[1:]
    padded = []
    for s in given:
        missing = longest - s.size(0)
        if missing:
            fill = fl.full((missing, *trailing), padding_value, dtype=s.dtype, device=s.device)
            s = fl.cat((s, fill) if padding_side == "right" else (fill, s))
        padded.append(s)
    return fl.stack(padded, 0 if batch_first else 1)


def unpad_sequence(padded_sequences: Tensor, lengths: Tensor, batch_first: bool = False) -> list[Tensor]:
    """The sequences that pad_sequence stacked, given their lengths."""
    by_batch = padded_sequences if batch_first else padded_sequences.transpose(0, 1)
    return [sequence[: int(length)] for sequence, length in zip(by_batch, lengths, strict=True)]


def pack_sequence(sequences: Sequence[Tensor], enforce_sorted: bool = True) -> PackedSequence:
    """Pack a list of sequences (L, *)."""
    lengths = fl.as_tensor([s.size(0) for s in sequences])
    return pack_padded_sequence(pad_sequence(sequences), lengths, enforce_sorted=enforce_sorted)


def unpack_sequence(packed_sequences: PackedSequence) -> list[Tensor]:
    """The list of sequences that pack_sequence packed."""
    padded, lengths = pad_packed_sequence(packed_sequences, batch_first=True)
    return unpad_sequence(padded, lengths, batch_first=True)
