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
from flambeau.nn.utils.fusion import (
    fuse_conv_bn_eval,
    fuse_conv_bn_weights,
    fuse_linear_bn_eval,
    fuse_linear_bn_weights,
)
from flambeau.nn.utils.init import skip_init
from flambeau.nn.utils.weight_norm import remove_weight_norm, weight_norm

from flambeau.nn.utils import parametrizations, parametrize, stateless  # isort: skip

__all__ = [
    "clip_grad_norm",
    "clip_grad_norm_",
    "clip_grad_value_",
    "clip_grads_with_norm_",
    "fuse_conv_bn_eval",
    "fuse_conv_bn_weights",
    "fuse_linear_bn_eval",
    "fuse_linear_bn_weights",
    "get_total_norm",
    "parameters_to_vector",
    "parametrizations",
    "parametrize",
    "remove_weight_norm",
    "rnn",
    "skip_init",
    "stateless",
    "vector_to_parameters",
    "weight_norm",
]
