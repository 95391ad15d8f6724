import xml.etree.ElementTree as ET

import flambeau
from flambeau.cli.graph import arrange, collect, draw_graph


def model_loss():
    model = flambeau.nn.Sequential(flambeau.nn.Linear(3, 4), flambeau.nn.Tanh(), flambeau.nn.Linear(4, 1))
    return model, model(flambeau.ones(2, 3)).sum()


def test_drawing_names_every_operator_and_parameter(tmp_path):
    model, loss = model_loss()
    draw_graph(loss, dict(model.named_parameters()), tmp_path / "g.svg")
    texts = [e.text for e in ET.parse(tmp_path / "g.svg").getroot().iter() if e.tag.endswith("text")]
    for word in ("SumBackward0", "TanhBackward0", "AddmmBackward0", "0.weight", "2.bias", "4x3"):
        assert word in texts


def test_boxes_do_not_overlap_and_inputs_are_above():
    model, loss = model_loss()
    x = flambeau.ones(2, requires_grad=True)
    for output in (loss, (x * x + x).sum(), x.clone()):
        boxes = collect(output.grad_fn, {})
        for row in arrange(boxes):
            row.sort(key=lambda box: box.x)
            for a, b in zip(row, row[1:]):
                assert b.x - b.width / 2 >= a.x + a.width / 2
        assert all(source.row > box.row for box in boxes for source in box.inputs)
