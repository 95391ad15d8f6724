"""The version of flambeau, and of the PyTorch whose behaviour it reproduces."""

__version__ = "0.1.0"
torch_version = "2.13.0"
