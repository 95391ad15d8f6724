import xml.etree.ElementTree as ET

import pytest

from flambeau.cli.curves import draw_curves


@pytest.mark.parametrize(
    "history",
    [[], [(1.0, 1.0, 1.0)], [(0.0, 0.0, 0.0)], [(2.3, 1.9, 0.1), (0.4, 0.5, 0.8), (0.01, 0.02, 0.99)]],
)
def test_draw(tmp_path, history):
    path = tmp_path / "c.svg"
    draw_curves(history, path)
    root = ET.parse(path).getroot()
    circles = root.findall("{http://www.w3.org/2000/svg}circle")
    assert len(circles) == 3 * len(history)
    height = float(root.get("height"))
    assert all(0 <= float(c.get("cy")) <= height for c in circles)
