"""`flambeau bench`: whole training steps, on flambeau and on an installed PyTorch in turn."""

from .command import main

__all__ = ["main"]
