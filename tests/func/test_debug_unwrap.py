"""debug_unwrap."""

import flambeau as torch
from flambeau.func import debug_unwrap, vmap


def test_it_shows_the_batch():
    x, shapes = torch.ones(2, 3, 4), []

    def f(a):
        return vmap(lambda b: shapes.append((debug_unwrap(b).shape, debug_unwrap(b, recurse=False).shape)) or b)(a)

    vmap(f)(x)
    assert shapes == [((2, 3, 4), (3, 4))] and debug_unwrap(x) is x
