"""Python's cycle collector, tuned for graphs.

A graph needs no collector: it has no cycles, and dies by reference counting. But each of its nodes counts towards the
collector's next run, and with Python's default threshold (700 new objects) recording a million nodes took three times
as long with the collector as without it. It is asked to run less often, unless the program has set it to its own taste.
"""

from __future__ import annotations

import gc

#: The thresholds that CPython starts with, version by version.
_DEFAULTS = {(700, 10, 10), (2000, 10, 10), (2000, 10, 0)}


def run_less_often() -> None:
    """Raise the youngest generation's threshold to 10,000 objects."""
    threshold = gc.get_threshold()
    if threshold in _DEFAULTS:
        gc.set_threshold(10_000, *threshold[1:])
