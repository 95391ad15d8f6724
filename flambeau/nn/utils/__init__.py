"""Tools for networks: clipping, packing of sequences, parametrizations."""

from flambeau.nn.utils import rnn  # isort: skip  (the recurrent layers import it, and it nothing of theirs)
from flambeau.nn.utils.clip_grad import (
    _clip_grads_with_norm_ as clip_grads_with_norm_,
)
from flambeau.nn.utils.clip_grad import (
    _get_total_norm as get_total_norm,
)
from flambeau.nn.utils.clip_grad import (
    clip_grad_norm,
    clip_grad_norm_,
    clip_grad_value_,
)
from flambeau.nn.utils.convert_parameters import parameters_to_vector, vector_to_parameters

__all__ = [
    "clip_grad_norm",
    "clip_grad_norm_",
    "clip_grad_value_",
    "clip_grads_with_norm_",
    "get_total_norm",
    "parameters_to_vector",
    "rnn",
    "vector_to_parameters",
]
