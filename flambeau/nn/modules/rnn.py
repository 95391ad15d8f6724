"""Recurrent layers: RNN, LSTM, GRU, and their cells."""

from __future__ import annotations

import math
import numbers
import warnings
from typing import Any

import flambeau as fl
from flambeau import _VF
from flambeau.core.errors import error
from flambeau.core.tensor import Tensor
from flambeau.nn import init
from flambeau.nn.modules.module import Module
from flambeau.nn.parameter import Parameter
from flambeau.nn.utils.rnn import PackedSequence

__all__ = ["GRU", "GRUCell", "LSTM", "LSTMCell", "RNN", "RNNBase", "RNNCell", "RNNCellBase"]

_GATES = {"LSTM": 4, "GRU": 3, "RNN_TANH": 1, "RNN_RELU": 1}


def apply_permutation(tensor: Tensor, permutation: Tensor, dim: int = 1) -> Tensor:
    """tensor.index_select(dim, permutation), by its old name."""
    warnings.warn(
        "`apply_permutation` is deprecated, please use `tensor.index_select(dim, permutation)` instead",
        FutureWarning,
        stacklevel=2,
    )
    return tensor.index_select(dim, permutation)


class RNNBase(Module):
    """Layers of a recurrence; a subclass chooses the mode."""

    __constants__ = [
        "mode",
        "input_size",
        "hidden_size",
        "num_layers",
        "bias",
        "batch_first",
        "dropout",
        "bidirectional",
        "proj_size",
    ]

    def __init__(
        self,
        mode: str,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        _check_options(mode, input_size, hidden_size, num_layers, bias, batch_first, dropout, proj_size)
        self.mode = mode
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bias = bias
        self.batch_first = batch_first
        self.dropout = float(dropout)
        self.bidirectional = bidirectional
        self.proj_size = proj_size

        gates = _GATES[mode] * hidden_size
        out_size = proj_size or hidden_size
        directions = 2 if bidirectional else 1
        self._all_weights: list[list[str]] = []
        for layer in range(num_layers):
            in_size = input_size if layer == 0 else out_size * directions
            for suffix in ("", "_reverse")[:directions]:
                shapes: dict[str, tuple[int, ...]] = {"weight_ih": (gates, in_size), "weight_hh": (gates, out_size)}
                if bias:
                    shapes |= {"bias_ih": (gates,), "bias_hh": (gates,)}
                if proj_size > 0:
                    shapes["weight_hr"] = (proj_size, hidden_size)
                names = []
                for name, shape in shapes.items():
                    names.append(f"{name}_l{layer}{suffix}")
                    setattr(self, names[-1], Parameter(fl.empty(shape, device=device, dtype=dtype)))
                self._all_weights.append(names)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights anew, uniform in ±1/√hidden_size."""
        bound = 1.0 / math.sqrt(self.hidden_size) if self.hidden_size > 0 else 0
        for weight in self.parameters():
            init.uniform_(weight, -bound, bound)

    @property
    def _flat_weights_names(self) -> list[str]:
        return [name for names in self._all_weights for name in names]

    @property
    def _flat_weights(self) -> list[Any]:
        return [getattr(self, name) for name in self._flat_weights_names]

    @property
    def all_weights(self) -> list[list[Parameter]]:
        """The weights, one list for each layer and direction."""
        return [[getattr(self, name) for name in names] for names in self._all_weights]

    def flatten_parameters(self) -> None:
        """For cuDNN; on the CPU there is nothing to do."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        for key in ("_flat_weights", "_flat_weights_names", "_flat_weight_refs"):  # PyTorch's pickles have them
            state.pop(key, None)
        super().__setstate__({"proj_size": 0, **state})

    def _shape(self, batch: int, size: int) -> tuple[int, int, int]:
        return (self.num_layers * (2 if self.bidirectional else 1), batch, size)

    def check_input(self, input: Tensor, batch_sizes: Tensor | None) -> None:
        """Raise unless the input's dtype and shape fit."""
        dtype = getattr(self, self._all_weights[0][0]).dtype
        if input.dtype != dtype:
            raise error(
                ValueError,
                f"RNN input dtype ({input.dtype}) does not match weight dtype ({dtype}). "
                f"Convert input: input.to({dtype}), or convert model: model.to({input.dtype})",
            )
        dims = 2 if batch_sizes is not None else 3
        if input.dim() != dims:
            raise error(RuntimeError, f"input must have {dims} dimensions, got {input.dim()}")
        if input.size(-1) != self.input_size:
            raise error(
                RuntimeError,
                f"input.size(-1) must be equal to input_size. Expected {self.input_size}, got {input.size(-1)}",
            )

    def get_expected_hidden_size(self, input: Tensor, batch_sizes: Tensor | None) -> tuple[int, int, int]:
        """The shape of a hidden state for this input."""
        return self._shape(self._batch_of(input, batch_sizes), self.proj_size or self.hidden_size)

    def get_expected_cell_size(self, input: Tensor, batch_sizes: Tensor | None) -> tuple[int, int, int]:
        """The shape of an LSTM's cell state for this input."""
        return self._shape(self._batch_of(input, batch_sizes), self.hidden_size)

    def _batch_of(self, input: Tensor, batch_sizes: Tensor | None) -> int:
        if batch_sizes is not None:
            return int(batch_sizes[0])
        return input.size(0 if self.batch_first else 1)

    def check_hidden_size(
        self, hx: Tensor, expected_hidden_size: tuple[int, int, int], msg: str = "Expected hidden size {}, got {}"
    ) -> None:
        """Raise unless a state has the expected shape."""
        if tuple(hx.size()) != expected_hidden_size:
            raise error(RuntimeError, msg.format(expected_hidden_size, list(hx.size())))

    def check_forward_args(self, input: Tensor, hidden: Any, batch_sizes: Tensor | None) -> None:
        """Raise unless input and hidden state fit together."""
        self.check_input(input, batch_sizes)
        self.check_hidden_size(hidden, self.get_expected_hidden_size(input, batch_sizes))

    def permute_hidden(self, hx: Any, permutation: Tensor | None) -> Any:
        """The state with its batch in another order."""
        return hx if permutation is None else hx.index_select(1, permutation)

    # How one state or, for the LSTM, a pair of them is made and reshaped.

    def _zero_state(self, input: Tensor, batch: int) -> Any:
        size = self._shape(batch, self.proj_size or self.hidden_size)
        return fl.zeros(size, dtype=input.dtype, device=input.device)

    def _check_state_dim(self, hx: Any, batched: bool) -> None:
        wanted = 3 if batched else 2
        if hx.dim() != wanted:
            what = "batched 3-D" if batched else "unbatched 2-D"
            raise error(
                RuntimeError,
                f"For {what} input, hx should also be {wanted}-D but got {hx.dim()}-D tensor",
            )

    def _map(self, hx: Any, fn: Any) -> Any:
        return fn(hx)

    def _result(self, outputs: tuple[Tensor, ...]) -> tuple[Tensor, Any]:
        return outputs[0], outputs[1]

    def forward(self, input: Any, hx: Any = None) -> tuple[Any, Any]:
        run = getattr(_VF, self.mode.lower())
        options = (self._flat_weights, self.bias, self.num_layers, self.dropout, self.training, self.bidirectional)
        if isinstance(input, PackedSequence):
            data, batch_sizes, order, back = input
            if hx is None:
                hx = self._zero_state(data, int(batch_sizes[0]))
            else:
                hx = self.permute_hidden(hx, order)
            self.check_forward_args(data, hx, batch_sizes)
            output, hidden = self._result(run(data, batch_sizes, hx, *options))
            return PackedSequence(output, batch_sizes, order, back), self.permute_hidden(hidden, back)

        if input.dim() not in (2, 3):
            tensor = " tensor" if self.mode.startswith("RNN") else ""
            raise error(
                ValueError,
                f"{self._get_name()}: Expected input to be 2D or 3D, got {input.dim()}D{tensor} instead",
            )
        batched = input.dim() == 3
        batch_dim = 0 if self.batch_first else 1
        if not batched:
            input = input.unsqueeze(batch_dim)
        if hx is None:
            hx = self._zero_state(input, input.size(batch_dim))
        else:
            self._check_state_dim(hx, batched)
            if not batched:
                hx = self._map(hx, lambda t: t.unsqueeze(1))
        self.check_forward_args(input, hx, None)
        output, hidden = self._result(run(input, hx, *options, self.batch_first))
        if not batched:
            output, hidden = output.squeeze(batch_dim), self._map(hidden, lambda t: t.squeeze(1))
        return output, hidden

    def extra_repr(self) -> str:
        text = f"{self.input_size}, {self.hidden_size}"
        usual = {
            "proj_size": 0,
            "num_layers": 1,
            "bias": True,
            "batch_first": False,
            "dropout": 0,
            "bidirectional": False,
        }
        for name, value in usual.items():
            if getattr(self, name) != value:
                text += f", {name}={getattr(self, name)}"
        return text


def _check_options(
    mode: str,
    input_size: int,
    hidden_size: int,
    num_layers: int,
    bias: bool,
    batch_first: bool,
    dropout: float,
    proj_size: int,
) -> None:
    if not isinstance(dropout, numbers.Number) or not 0 <= dropout <= 1 or isinstance(dropout, bool):
        raise error(
            ValueError,
            "dropout should be a number in range [0, 1] representing the probability of an element being zeroed",
        )
    if dropout > 0 and num_layers == 1:
        warnings.warn(
            "dropout option adds dropout after all but last recurrent layer, so non-zero dropout expects "
            f"num_layers greater than 1, but got dropout={dropout} and num_layers={num_layers}",
            stacklevel=4,
        )
    for name, value, kind in (("bias", bias, bool), ("batch_first", batch_first, bool)):
        if not isinstance(value, kind):
            raise error(TypeError, f"{name} should be of type bool, got: {type(value).__name__}")
    for name, value in (("input_size", input_size), ("hidden_size", hidden_size)):
        if not isinstance(value, int):
            raise error(TypeError, f"{name} should be of type int, got: {type(value).__name__}")
        if value <= 0:
            raise error(ValueError, f"{name} must be greater than zero")
    if num_layers <= 0:
        raise error(ValueError, "num_layers must be greater than zero")
    if proj_size < 0:
        raise error(ValueError, "proj_size should be a positive integer or zero to disable projections")
    if proj_size >= hidden_size:
        raise error(ValueError, "proj_size has to be smaller than hidden_size")
    if mode not in _GATES:
        raise error(ValueError, "Unrecognized RNN mode: " + mode)


def _no_projection(kwargs: dict[str, Any]) -> None:
    if "proj_size" in kwargs:
        raise error(ValueError, "proj_size argument is only supported for LSTM, not RNN or GRU")


class RNN(RNNBase):
    """h_t = tanh(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh), or relu.

    Shape: (L, N, input_size), or (N, L, ·) with batch_first, or (L, ·); h (layers · directions, N, hidden_size)
    -> output (L, N, directions · hidden_size), h
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        _no_projection(kwargs)
        if len(args) > 3:
            nonlinearity = args[3]
            args = args[:3] + args[4:]
        else:
            nonlinearity = kwargs.pop("nonlinearity", "tanh")
        if nonlinearity not in ("tanh", "relu"):
            raise error(
                ValueError, f"Unknown nonlinearity '{nonlinearity}'. Select from 'tanh' or 'relu'."
            )
        super().__init__(f"RNN_{nonlinearity.upper()}", *args, **kwargs)
        self.nonlinearity = nonlinearity


class LSTM(RNNBase):
    """i, f, g, o = W_ih x_t + b_ih + W_hh h_{t-1} + b_hh; c_t = σ(f) c_{t-1} + σ(i) tanh(g); h_t = σ(o) tanh(c_t).

    With proj_size, h_t is further multiplied by W_hr.

    Shape: (L, N, input_size), or (N, L, ·) with batch_first, or (L, ·); h, c (layers · directions, N, ·)
    -> output (L, N, directions · hidden_size), (h, c)

    >>> import flambeau as torch
    >>> output, (h, c) = torch.nn.LSTM(10, 20, 2)(torch.randn(5, 3, 10))
    >>> output.shape, h.shape
    (torch.Size([5, 3, 20]), torch.Size([2, 3, 20]))
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__("LSTM", *args, **kwargs)

    def check_forward_args(self, input: Tensor, hidden: Any, batch_sizes: Tensor | None) -> None:
        self.check_input(input, batch_sizes)
        for i, size in enumerate((self.get_expected_hidden_size, self.get_expected_cell_size)):
            self.check_hidden_size(hidden[i], size(input, batch_sizes), f"Expected hidden[{i}] size {{}}, got {{}}")

    def permute_hidden(self, hx: Any, permutation: Tensor | None) -> Any:
        return hx if permutation is None else tuple(t.index_select(1, permutation) for t in hx)

    def _zero_state(self, input: Tensor, batch: int) -> Any:
        cell = fl.zeros(self._shape(batch, self.hidden_size), dtype=input.dtype, device=input.device)
        return super()._zero_state(input, batch), cell

    def _check_state_dim(self, hx: Any, batched: bool) -> None:
        wanted = 3 if batched else 2
        if hx[0].dim() != wanted or hx[1].dim() != wanted:
            what = "batched 3-D" if batched else "unbatched 2-D"
            raise error(
                RuntimeError,
                f"For {what} input, hx and cx should also be {wanted}-D but got "
                f"({hx[0].dim()}-D, {hx[1].dim()}-D) tensors",
            )

    def _map(self, hx: Any, fn: Any) -> Any:
        return tuple(fn(t) for t in hx)

    def _result(self, outputs: tuple[Tensor, ...]) -> tuple[Tensor, Any]:
        return outputs[0], tuple(outputs[1:])


class GRU(RNNBase):
    """r, z = σ(W x_t + b + U h_{t-1} + c); n = tanh(W_n x_t + b_n + r (U_n h_{t-1} + c_n)); h_t = (1 - z) n + z h_{t-1}.

    Shape: as RNN
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        _no_projection(kwargs)
        super().__init__("GRU", *args, **kwargs)


class RNNCellBase(Module):
    """One step of a recurrence; a subclass says which."""

    __constants__ = ["input_size", "hidden_size", "bias"]

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool,
        num_chunks: int,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.bias = bias
        gates = num_chunks * hidden_size

        def made(*size: int) -> Parameter:
            return Parameter(fl.empty(size, device=device, dtype=dtype))

        self.weight_ih = made(gates, input_size)
        self.weight_hh = made(gates, hidden_size)
        self.register_parameter("bias_ih", made(gates) if bias else None)
        self.register_parameter("bias_hh", made(gates) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights anew, uniform in ±1/√hidden_size."""
        bound = 1.0 / math.sqrt(self.hidden_size) if self.hidden_size > 0 else 0
        for weight in self.parameters():
            init.uniform_(weight, -bound, bound)

    def extra_repr(self) -> str:
        text = f"{self.input_size}, {self.hidden_size}"
        if self.bias is not True:
            text += f", bias={self.bias}"
        nonlinearity = self.__dict__.get("nonlinearity", "tanh")
        return text if nonlinearity == "tanh" else f"{text}, nonlinearity={nonlinearity}"

    def _check_dim(self, value: Tensor, what: str) -> None:
        if value.dim() not in (1, 2):
            raise error(
                ValueError, f"{self._get_name()}: Expected {what} to be 1D or 2D, got {value.dim()}D instead"
            )

    def _zeros(self, input: Tensor) -> Tensor:
        return fl.zeros(input.size(0), self.hidden_size, dtype=input.dtype, device=input.device)

    def _weights(self) -> tuple[Any, ...]:
        return self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh

    def _step(self, function: str, input: Tensor, hx: Tensor | None) -> Tensor:
        self._check_dim(input, "input")
        if hx is not None:
            self._check_dim(hx, "hidden")
        batched = input.dim() == 2
        if not batched:
            input = input.unsqueeze(0)
            hx = None if hx is None else hx.unsqueeze(0)
        out = getattr(_VF, function)(input, self._zeros(input) if hx is None else hx, *self._weights())
        return out if batched else out.squeeze(0)


class RNNCell(RNNCellBase):
    """h' = tanh(W_ih x + b_ih + W_hh h + b_hh), or relu.

    Shape: (N, input_size), (N, hidden_size) -> (N, hidden_size), or all without N
    """

    __constants__ = ["input_size", "hidden_size", "bias", "nonlinearity"]

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, 1, device, dtype)
        self.nonlinearity = nonlinearity

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        if self.nonlinearity not in ("tanh", "relu"):
            raise error(RuntimeError, f"Unknown nonlinearity: {self.nonlinearity}")
        return self._step(f"rnn_{self.nonlinearity}_cell", input, hx)


class LSTMCell(RNNCellBase):
    """One step of an LSTM. Shape: (N, input_size), ((N, hidden_size), (N, hidden_size)) -> the same pair"""

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__(input_size, hidden_size, bias, 4, device, dtype)

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        self._check_dim(input, "input")
        for i, state in enumerate(hx or ()):
            self._check_dim(state, f"hx[{i}]")
        batched = input.dim() == 2
        if not batched:
            input = input.unsqueeze(0)
        if hx is None:
            zeros = self._zeros(input)
            hx = (zeros, zeros)
        elif not batched:
            hx = (hx[0].unsqueeze(0), hx[1].unsqueeze(0))
        h, c = _VF.lstm_cell(input, hx, *self._weights())
        return (h, c) if batched else (h.squeeze(0), c.squeeze(0))


class GRUCell(RNNCellBase):
    """One step of a GRU. Shape: (N, input_size), (N, hidden_size) -> (N, hidden_size)"""

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__(input_size, hidden_size, bias, 3, device, dtype)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        return self._step("gru_cell", input, hx)
