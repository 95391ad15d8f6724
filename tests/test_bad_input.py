"""Bad input gets PyTorch's exception class, its key phrase and the user's line, and changes nothing."""

import io
import linecache
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import flambeau
from flambeau import nn
from tests.bad_input_cases import CASES

ALL = [pytest.param(case, id=f"{group.split()[0]}-{case.call}") for group, cases in CASES.items() for case in cases]
MEMORY = [case.values[0] for case in ALL if "can't allocate memory" in case.values[0].phrase]


def prepared(case, torch):
    """The names that the set-up makes, and those that the call needs with them."""
    names = {"torch": torch, "nn": torch.nn, "F": torch.nn.functional, "__name__": "user"}
    exec(compile(case.setup, "setup.py", "exec"), names)
    return names


def call(case, names):
    """Run the call as a line of a file, whose text Python knows."""
    linecache.cache["user.py"] = (len(case.call), None, [case.call + "\n"], "user.py")
    exec(compile(case.call, "user.py", "exec"), names)


def state(names, torch):
    """Everything about the tensors, modules and optimisers among the names that a call could have changed."""
    found = {}
    for name, value in names.items():
        if isinstance(value, torch.nn.Module):
            value = {**dict(value.named_parameters()), **dict(value.named_buffers())}
        if isinstance(value, torch.optim.Optimizer):
            found[name] = repr(value.state_dict())
        for key, t in value.items() if isinstance(value, dict) and name != "__builtins__" else [("", value)]:
            if isinstance(t, torch.Tensor):
                small = t.numel() < 1000
                found[name, key] = (
                    t._version, tuple(t.shape), t.stride(), t.dtype, t.requires_grad, t.is_leaf, id(t.grad_fn),
                    repr(t.detach().tolist()) if small else None, None if not t.is_leaf else repr(t.grad),
                )  # fmt: skip
    return found


@pytest.mark.parametrize("case", ALL)
def test_it_fails_as_pytorch_does_and_changes_nothing(case):
    names = prepared(case, flambeau)
    before = state(names, flambeau)
    with pytest.raises(case.error) as caught:
        call(case, names)
    message = str(caught.value)
    assert case.phrase in message
    if case.line:
        assert f"at user.py:1: {case.call}" in message
    assert state(names, flambeau) == before


@pytest.mark.torch
@pytest.mark.parametrize("case", ALL)
def test_the_table_is_pytorchs(case):
    torch = pytest.importorskip("torch")
    names = prepared(case, torch)
    with pytest.raises(case.error) as caught:
        call(case, names)
    assert case.phrase in str(caught.value)


@pytest.mark.parametrize("case", MEMORY)
def test_memory_that_cannot_be_had_names_its_size(case):
    with pytest.raises(RuntimeError, match=r"you tried to allocate \d{14,} bytes"):
        call(case, prepared(case, flambeau))


# ---- backward -------------------------------------------------------------------------------------------------------
def line_with(comment):
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    return next(i for i, text in enumerate(lines, 1) if text.endswith("# " + comment))


def test_a_saved_tensor_changed_in_place_names_both_lines():
    x = flambeau.ones(3, requires_grad=True)
    w = flambeau.ones(3)
    y = (x * w).sum()  # saved here
    w.mul_(2)  # changed here
    with pytest.raises(RuntimeError, match="modified by an inplace operation.*at version 1; expected version 0") as caught:
        y.backward()  # and used here
    for comment in ("saved here", "changed here", "and used here"):
        assert f"test_bad_input.py:{line_with(comment)} in" in str(caught.value)
    assert x.grad is None
    w.div_(2)


def test_a_second_backward_names_the_line_that_recorded():
    x = flambeau.ones(3, requires_grad=True)
    y = x.exp()  # recorded here
    y.sum().backward()
    before = x.grad.tolist()
    with pytest.raises(RuntimeError, match="Trying to backward through the graph a second time") as caught:
        y.sum().backward()
    assert f"test_bad_input.py:{line_with('recorded here')} in" in str(caught.value)
    assert x.grad.tolist() == before


def test_a_rule_that_fails_names_the_line_of_the_forward_pass():
    class Bad(flambeau.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, g):
            return flambeau.ones(2) + flambeau.ones(3)

    x = flambeau.ones(2, requires_grad=True)
    y = Bad.apply(x)  # applied here
    with pytest.raises(RuntimeError, match="must match the size of tensor b") as caught:
        y.sum().backward()
    assert any(f"test_bad_input.py:{line_with('applied here')}" in note for note in caught.value.__notes__)
    assert x.grad is None


def test_an_operator_that_fails_while_recording_leaves_no_trace():
    x = flambeau.ones(2, requires_grad=True)
    y = x * 2
    with pytest.raises(RuntimeError):
        y.add_(flambeau.ones(5))
    assert y.grad_fn.name() == "MulBackward0" and y._version == 0
    y.sum().backward()
    assert x.grad.tolist() == [2, 2]


# ---- state_dict -----------------------------------------------------------------------------------------------------
def test_a_state_dict_that_does_not_fit_lists_everything():
    net = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    given = {"0.weight": flambeau.ones(3, 3), "0.bias": flambeau.ones(3), "1.bias": flambeau.ones(1), "2.bias": flambeau.ones(1)}
    with pytest.raises(RuntimeError, match=r"Error\(s\) in loading state_dict for Sequential") as caught:
        net.load_state_dict(given)
    text = str(caught.value)
    assert 'Missing key(s) in state_dict: "1.weight"' in text
    assert 'Unexpected key(s) in state_dict: "2.bias"' in text
    assert "size mismatch for 0.weight: copying a param with shape torch.Size([3, 3]) from checkpoint, the shape in current model" in text


@pytest.mark.parametrize("given", [{}, {"weight": flambeau.ones(3, 2), "bias": flambeau.ones(4)}], ids=["missing", "misshapen"])
def test_what_pytorch_loads_of_it_is_loaded(given):
    """As in PyTorch, the entries that do fit are taken before the error is raised; the others keep their values."""
    layer = nn.Linear(2, 3)
    bias = layer.bias.tolist()
    with pytest.raises(RuntimeError):
        layer.load_state_dict(given)
    assert layer.bias.tolist() == bias


# ---- files ----------------------------------------------------------------------------------------------------------
class Runs:
    """A pickle that would make a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, 0.9, -1])
def test_a_truncated_file(tmp_path, keep):
    path = tmp_path / "model.pt"
    flambeau.save({"w": flambeau.ones(100)}, path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep) if isinstance(keep, float) else keep])
    with pytest.raises((RuntimeError, EOFError, pickle.UnpicklingError)) as caught:
        flambeau.load(path)
    assert "test_bad_input.py" in str(caught.value)


def test_a_malicious_file_runs_nothing(tmp_path):
    path, made = tmp_path / "model.pt", tmp_path / "made"
    flambeau.save({"w": Runs(made)}, path)
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        flambeau.load(path)
    with pytest.raises(pickle.UnpicklingError):
        flambeau.load(io.BytesIO(pickle.dumps(Runs(made))))
    assert not made.exists()


def test_a_save_that_is_killed_leaves_the_old_file(tmp_path):
    path = tmp_path / "model.pt"
    flambeau.save(flambeau.ones(3), path)
    program = """
import os, signal, sys
import flambeau
class Stops:
    def __reduce__(self):
        os.kill(os.getpid(), signal.SIGKILL)
flambeau.save([flambeau.zeros(100000), Stops()], sys.argv[1])
"""
    root = str(Path(flambeau.__file__).parents[1])
    done = subprocess.run([sys.executable, "-c", program, path], env={**os.environ, "PYTHONPATH": root}, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert flambeau.load(path).tolist() == [1, 1, 1]


def test_a_save_that_raises_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "model.pt"
    flambeau.save(flambeau.ones(3), path)
    with pytest.raises((AttributeError, TypeError, pickle.PicklingError)):
        flambeau.save([flambeau.zeros(10), lambda: 0], path)
    assert flambeau.load(path).tolist() == [1, 1, 1]
    assert [p.name for p in tmp_path.iterdir()] == ["model.pt"]


# ---- workers --------------------------------------------------------------------------------------------------------
class Breaks(flambeau.utils.data.Dataset):
    def __init__(self, how):
        self.how = how

    def __len__(self):
        return 8

    def __getitem__(self, i):
        if i == 5:
            if self.how == "raises":
                raise ValueError("number five is bad")
            os.kill(os.getpid(), signal.SIGKILL)
        return i


def test_a_worker_that_raises_shows_its_traceback():
    with pytest.raises(ValueError, match="Caught ValueError in DataLoader worker process") as caught:
        list(flambeau.utils.data.DataLoader(Breaks("raises"), batch_size=2, num_workers=2))
    text = str(caught.value)
    assert "number five is bad" in text and "test_bad_input.py" in text and "in __getitem__" in text


def test_a_worker_that_is_killed_is_an_error_not_a_hang():
    with pytest.raises(RuntimeError, match=r"DataLoader worker \(pid\(?s?\)? ?\(?[\d, ]+\)?\) (is killed by signal|exited unexpectedly)"):
        list(flambeau.utils.data.DataLoader(Breaks("dies"), batch_size=2, num_workers=2))


# ---- scripts --------------------------------------------------------------------------------------------------------
def test_a_script_that_is_not_there(tmp_path):
    root = str(Path(flambeau.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-m", "flambeau", "run", "nothing.py"], cwd=tmp_path, env={**os.environ, "PYTHONPATH": root},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert "nothing.py" in done.stderr and "No such file" in done.stderr and "Traceback" not in done.stderr


# ---- modules --------------------------------------------------------------------------------------------------------
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(5, 1))

    def forward(self, x):
        return self.encoder(x)


def test_an_error_names_the_module_that_was_running():
    with pytest.raises(RuntimeError, match="mat1 and mat2 shapes cannot be multiplied") as caught:
        Net()(flambeau.ones(3, 2))
    assert "\n  in module encoder.2 (Linear)\n" in str(caught.value)
    with pytest.raises(RuntimeError) as caught:
        nn.Linear(3, 1)(flambeau.ones(3, 2))
    assert "\n  in module Linear\n" in str(caught.value)
    with pytest.raises(RuntimeError) as caught:
        flambeau.ones(2) + flambeau.ones(3)
    assert "in module" not in str(caught.value)
