"""How long a thread without work spins before it sleeps: briefly, for the sake of all else that runs here.

The libraries read this when they are loaded, so ``import flambeau`` begins with this module. What the user set stays.

- libgomp spins for milliseconds: beside one busy process a step of small kernels took 5.7 ms with this, never more than
  5.9; without it 6.7 in the median, 10 on average and 93 at worst. On an idle machine it took 6 % more with this.
- OpenBLAS, NumPy's, spins for 2**26 cycles, from its start on: beside one busy process on two cores, ``import numpy``
  took 75 ms instead of 130 with this, and products of matrices took as long as before.
"""

from __future__ import annotations

import os

if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "16")
