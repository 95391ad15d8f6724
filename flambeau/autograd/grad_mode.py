"""``torch.autograd.grad_mode``: the context managers under the path that programs import them from."""

from ..core.modes import enable_grad, inference_mode, no_grad, set_grad_enabled

__all__ = ["enable_grad", "inference_mode", "no_grad", "set_grad_enabled"]
