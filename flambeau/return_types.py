"""``torch.return_types``: the named tuples that operators with several results return."""

from .ops.return_types import *  # noqa: F403
