"""How a DataLoader works: fetching, collating, and the worker processes."""

from . import collate, fetch, worker

__all__ = ["collate", "fetch", "worker"]
