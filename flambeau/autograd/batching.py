from ..core.tensor import Tensor


class Batched(Tensor): ...
def innermost(args): return None
together=None
