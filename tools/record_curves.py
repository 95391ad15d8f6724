"""Run the trainings of tests/curve_models.py with PyTorch and keep initial weights and losses in tests/data_curves.

    python tools/record_curves.py            # needs torch; the numbers in the repository are from torch 2.13
"""

import json
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.curve_models import MODELS, run  # noqa: E402


def main() -> None:
    torch.set_num_threads(2)
    for name in MODELS:
        weights, losses = run(name, torch)
        # The first and last few of each weight: the files stay small.
        short = {k: v[:8] + v[-8:] for k, v in weights.items()}
        path = ROOT / "tests" / "data_curves" / f"{name}.json"
        path.write_text(json.dumps({"torch": torch.__version__, "weights": short, "losses": losses}, indent=1) + "\n")
        print(path.relative_to(ROOT), losses[0], losses[-1])


if __name__ == "__main__":
    main()
