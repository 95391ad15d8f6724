import copy
import gc
import pickle
from collections import OrderedDict

import pytest

import flambeau
from flambeau.utils.hooks import RemovableHandle, unserializable_hook, warn_if_has_hooks


def test_handle():
    hooks, marks = OrderedDict(), OrderedDict()
    handle = RemovableHandle(hooks, extra_dict=[marks])
    hooks[handle.id], marks[handle.id] = print, True
    handle.remove()
    handle.remove()
    assert not hooks and not marks
    with RemovableHandle(hooks) as other:
        hooks[other.id] = print
        assert other.id != handle.id
    assert not hooks


def test_handle_outlives_its_registry():
    hooks = OrderedDict()
    handle = RemovableHandle(hooks, extra_dict=hooks)
    del hooks
    gc.collect()
    handle.remove()
    pickle.loads(pickle.dumps(handle)).remove()


def test_copies_together_with_its_registry():
    hooks = OrderedDict()
    handle = RemovableHandle(hooks)
    hooks[handle.id] = "hook"
    hooks2, handle2 = copy.deepcopy((hooks, handle))
    handle2.remove()
    assert not hooks2 and hooks


def test_warn_if_has_hooks():
    x = flambeau.ones(2, requires_grad=True)
    warn_if_has_hooks(x)
    x.register_hook(unserializable_hook(lambda g: g))
    warn_if_has_hooks(x)
    x.register_hook(lambda g: g)
    with pytest.warns(UserWarning, match="will not be serialized"):
        warn_if_has_hooks(x)
