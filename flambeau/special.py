"""``torch.special``."""

from .ops.public import FUNCTIONS

globals().update(FUNCTIONS["special"].complete())
