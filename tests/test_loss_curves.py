"""A seed gives PyTorch's initial weights, and training from them PyTorch's losses, step by step.

The numbers were recorded from torch 2.13 by ``tools/record_curves.py``; ``curve_models.py`` is what both run.

How close is close enough: the first loss is one forward pass, so it agrees to float32's rounding, a few 1e-7. From
then on every step carries the last one's rounding on, and training amplifies it; where a ReLU or a max pool turns
over to the other side, by a leap. PyTorch differs as much from itself: with one thread in place of two its losses of
the convolutional network go apart by 4e-4 within the hundred steps, and in float64 by 2e-5 for the transformer. A
derivative that is wrong, a biased kernel or another order of random draws shows within the first steps, at 1e-6 and up.
"""

import json
from pathlib import Path

import pytest

import flambeau
from tests.curve_models import MODELS, STEPS, run

DATA = Path(__file__).parent / "data_curves"
FIRST = 1e-6  # relative, of the first 10 losses
# relative, of all hundred
ALL = {"mlp": 1e-5, "convnet": 2e-3, "transformer": 1e-4}


@pytest.mark.parametrize("name", MODELS)
def test_losses_are_pytorchs(name):
    recorded = json.loads((DATA / f"{name}.json").read_text(encoding="utf-8"))
    weights, losses = run(name, flambeau)
    assert {k: v[:8] + v[-8:] for k, v in weights.items()} == recorded["weights"]
    assert len(losses) == STEPS
    assert losses[:10] == pytest.approx(recorded["losses"][:10], rel=FIRST)
    assert losses == pytest.approx(recorded["losses"], rel=ALL[name])
    assert losses[-1] < losses[0] / 3


@pytest.mark.torch
@pytest.mark.parametrize("name", MODELS)
def test_every_initial_weight_is_pytorchs(name):
    torch = pytest.importorskip("torch")
    ours, _ = MODELS[name](flambeau)
    theirs, _ = MODELS[name](torch)
    assert {k: v.tolist() for k, v in ours.state_dict().items()} == {k: v.tolist() for k, v in theirs.state_dict().items()}
