"""Anomaly detection. Nearly every test runs on flambeau and, as the specification, on PyTorch."""

import warnings

import pytest

import flambeau


@pytest.fixture(params=["flambeau", pytest.param("torch", marks=pytest.mark.torch)])
def T(request):
    return flambeau if request.param == "flambeau" else pytest.importorskip("torch")


def leaf(T, *values):
    return T.tensor(values, requires_grad=True)


def warned(fn, error, match):
    """What is warned of by a call that raises."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(error, match=match):
            fn()
    return [str(w.message) for w in caught]


def test_nan_is_an_error_that_names_the_forward_call(T):
    def run():
        with T.autograd.detect_anomaly():
            y = leaf(T, 0.0).sqrt()  # the forward line
            (y * 0).backward()

    first, second = warned(run, RuntimeError, "Function 'SqrtBackward0' returned nan values in its 0th output.")
    assert first.startswith("Anomaly Detection has been enabled. This mode will increase the runtime and should only be enabled for debugging.")
    assert second.startswith("Error detected in SqrtBackward0. Traceback of forward call that caused the error:\n")
    assert "# the forward line" in second and "in run" in second


def test_only_flambeaus_own_frames_are_left_out():
    def run():
        with flambeau.autograd.set_detect_anomaly(True):
            flambeau.nn.functional.linear(leaf(flambeau, 0.0), leaf(flambeau, 0.0)).sqrt().sum().mul(0).backward()

    (text,) = warned(run, RuntimeError, "SqrtBackward0")
    assert "flambeau/" not in text.split("nn.functional")[0].replace("/tests/", "").replace(__file__, "")


def test_switched_on_around_backward_only(T):
    def run():
        z = leaf(T, 0.0).sqrt() * 0
        with T.autograd.set_detect_anomaly(True):
            z.backward()

    (text,) = warned(run, RuntimeError, "Function 'SqrtBackward0' returned nan values in its 0th output.")
    assert text.startswith(
        "Error detected in SqrtBackward0. No forward pass information available. Enable detect anomaly during forward pass for more information."
    )


def test_without_a_check_for_nan(T):
    x = leaf(T, 0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with T.autograd.detect_anomaly(check_nan=False):
            (x.sqrt() * 0).backward()
    assert x.grad.isnan().all()


def test_given_nan(T):
    def run():
        with T.autograd.set_detect_anomaly(True):
            (leaf(T, 0.0) * 2).backward(T.tensor([float("nan")]))

    warned(run, RuntimeError, "Function 'MulBackward0' returned nan values in its 0th output.")


def test_double_backward_names_every_call(T):
    def run():
        with T.autograd.set_detect_anomaly(True):
            x = leaf(T, 0.0)
            y = x**1.5  # first
            (g,) = T.autograd.grad(y, x, create_graph=True)  # second
            (h,) = T.autograd.grad(g * 1, x, create_graph=True)  # third
            (h * 0).backward()

    texts = warned(run, RuntimeError, r"Function '\w+' returned nan values")
    assert texts[0].startswith("Error detected in ") and "# third" in texts[0]
    assert "\n\nPrevious calculation was induced by " in texts[1] and "# second" in texts[1]
    assert "Traceback of forward call that induced the previous calculation:\n" in texts[1]
    assert texts[2].startswith("\n\nPrevious calculation was induced by PowBackward0. ") and "# first" in texts[2]
    assert len(texts) == 3


def test_errors_of_functions_and_hooks(T):
    class Broken(T.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 1

        @staticmethod
        def backward(ctx, g):
            raise ValueError("broken")

    def run():
        with T.autograd.set_detect_anomaly(True):
            Broken.apply(leaf(T, 0.0)).backward()  # the forward line

    (text,) = warned(run, ValueError, "broken")
    assert text.startswith("Error detected in BrokenBackward. Traceback of forward call") and "# the forward line" in text

    def run_hook():
        with T.autograd.set_detect_anomaly(True):
            y = leaf(T, 0.0) * 2
            y.register_hook(lambda g: 1 / 0)
            y.backward()

    (text,) = warned(run_hook, ZeroDivisionError, "division by zero")
    assert text.startswith("Error detected in MulBackward0.")


def test_what_nodes_note(T):
    with T.autograd.set_detect_anomaly(True):
        x = leaf(T, 1.0)
        y = x * 2
        assert "y = x * 2" in y.grad_fn.metadata["traceback_"][-1] and "parent_" not in y.grad_fn.metadata
        (g,) = T.autograd.grad(y * y, x, create_graph=True)
        assert g.grad_fn.metadata["parent_"] is y.grad_fn
    assert "traceback_" not in (x * 2).grad_fn.metadata


def test_noted_for_every_kind_of_node():
    T = flambeau
    with T.autograd.set_detect_anomaly(True):
        x = T.ones(2, 2, requires_grad=True)
        z = x.clone()
        z[0].mul_(2)
        a, b = x.split(1)
        for t in (x + 1, x.exp(), x.sum(), x @ x, x[0], a, b, x.var(), x.clamp(0), x.requires_grad_().t(), z.mul_(2)):
            assert "traceback_" in t.grad_fn.metadata, t.grad_fn


def test_state(T):
    assert not T.is_anomaly_enabled() and T.is_anomaly_check_nan_enabled()
    T.autograd.set_detect_anomaly(True, check_nan=False)
    assert T.is_anomaly_enabled() and not T.is_anomaly_check_nan_enabled()
    with T.no_grad(), T.autograd.set_detect_anomaly(True):
        assert T.is_anomaly_check_nan_enabled()
    assert T.is_anomaly_enabled() and not T.is_anomaly_check_nan_enabled()
    T.autograd.set_detect_anomaly(False)
    assert not T.is_anomaly_enabled()
    T.set_anomaly_enabled(True)
    assert T.is_anomaly_enabled() and T.is_anomaly_check_nan_enabled()
    T.set_anomaly_enabled(False)
    with pytest.raises(TypeError, match="must be bool"):
        T.set_anomaly_enabled("yes")
