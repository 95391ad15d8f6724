import types

import pytest

from flambeau.cli import missing
from flambeau.cli.missing import MissingModule, placeholder


def test_placeholder_fails_when_used():
    bar = placeholder("torch.foo.Bar")
    for use in (
        bar,
        lambda: bar[0](),
        lambda: bar + 1,
        lambda: len(bar),
        lambda: bar.baz(),
        lambda: list(bar),
    ):
        with pytest.raises(NotImplementedError, match="torch.foo.Bar"):
            use()
    with pytest.raises(NotImplementedError, match="torch.foo.Bar.flag"):
        bar.flag = True
    assert repr(bar) == "<torch.foo.Bar, which is not in flambeau>"


def test_placeholder_as_a_class():
    bar = placeholder("torch.foo.Bar")

    class Derived(bar, flag=1):
        size = 3

    assert Derived.size == 3 and issubclass(Derived, bar) and not isinstance(3, bar)
    with pytest.raises(NotImplementedError, match="torch.foo.Bar"):
        Derived()
    assert isinstance(bar | None, types.UnionType)


def test_placeholder_of_an_exception_can_be_caught():
    error = placeholder("torch.foo.SomeError", exception=True)
    with pytest.raises(KeyError):
        try:
            raise KeyError
        except error:
            pass


def test_missing_module():
    module = MissingModule("torch.distributed")
    with pytest.raises(NotImplementedError, match="torch.distributed.barrier"):
        module.barrier()
    with pytest.raises(AttributeError):
        module.barier  # noqa: B018
    assert not hasattr(module, "barrier") and "barrier" in module.__all__
    with pytest.raises(NotImplementedError, match="torch.distributed.flag"):
        module.flag = 1


def test_only_reading_gives_placeholders():
    seen = []

    class Watch:
        def __getattr__(self, name):
            import sys

            seen.append(missing.is_attribute_access(sys._getframe(1)))
            raise AttributeError

    watch = Watch()
    for use in (
        lambda: watch.a,
        lambda: hasattr(watch, "a"),
        lambda: getattr(watch, "a", 0),
        lambda: watch.a(),
    ):
        try:
            use()
        except AttributeError:
            pass
    assert seen == [True, False, False, True]
