import json

from flambeau.cli import machine


def test_describe():
    facts = machine.describe()
    json.dumps(facts)
    assert facts["cpus"] >= 1 and facts["cpu"] and facts["packages"]["numpy"]
