"""PyTorch's place for what lives in ``flambeau.core.pytree``."""

from ..core.pytree import *  # noqa: F403
from ..core.pytree import __all__, _broadcast_to_and_flatten  # noqa: F401
