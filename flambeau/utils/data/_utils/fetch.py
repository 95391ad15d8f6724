"""Fetching: from keys to a collated batch."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

__all__ = ["IterableFetcher", "MapFetcher", "make_fetcher"]


class MapFetcher:
    """Samples by key."""

    def __init__(self, dataset: Any, batched: bool, collate_fn: Callable[[Any], Any], drop_last: bool):
        self.dataset, self.batched, self.collate_fn = dataset, batched, collate_fn

    def fetch(self, keys: Any) -> Any:
        if not self.batched:
            return self.collate_fn(self.dataset[keys])
        many = getattr(self.dataset, "__getitems__", None)
        return self.collate_fn(many(keys) if many else [self.dataset[key] for key in keys])


class IterableFetcher:
    """The next samples of a stream, as many as there are keys; StopIteration at its end."""

    def __init__(self, dataset: Any, batched: bool, collate_fn: Callable[[Any], Any], drop_last: bool):
        self.stream, self.batched, self.collate_fn = iter(dataset), batched, collate_fn
        self.drop_last, self.ended = drop_last, False

    def fetch(self, keys: Any) -> Any:
        if self.ended:
            raise StopIteration
        if not self.batched:
            return self.collate_fn(next(self.stream))
        samples = list(itertools.islice(self.stream, len(keys)))
        self.ended = len(samples) < len(keys)
        if not samples or (self.ended and self.drop_last):
            raise StopIteration
        return self.collate_fn(samples)


def make_fetcher(iterable: bool, *args: Any) -> MapFetcher | IterableFetcher:
    return IterableFetcher(*args) if iterable else MapFetcher(*args)
