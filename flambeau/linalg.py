"""``torch.linalg``."""

from .ops.public import FUNCTIONS

globals().update(FUNCTIONS["linalg"].complete())
