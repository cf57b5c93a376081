"""Whether a job computes each setting once, and which values lie at an end of their range."""

from types import SimpleNamespace

import pytest

from jobs.query.settings import computes_once, ends
from jobs.spec.description import Description
from jobs.spec.job import parse_job

RATE = {"loguniform": [1e-4, 1e-1]}
DRAWN = {"random": {"learning_rate": RATE}, "samples": 4}
SEARCH = {"metric": "eval_loss", "params": {"learning_rate": RATE}}
OPTUNA = SEARCH | {"method": "optuna", "trials": 4}
POPULATION = SEARCH | {"method": "population", "every": 1, "generations": 2}


@pytest.mark.parametrize(
    ("fields", "content", "once"),
    [
        ({"seed": ""}, {"sweep": DRAWN}, True),
        ({"seed": ""}, {"search": OPTUNA}, True),
        ({}, {"sweep": DRAWN}, False),
        ({"g": ""}, {"search": OPTUNA}, True),
        ({"g": ""}, {"sweep": DRAWN | {"seeds": 3}}, False),
        ({"seed": ""}, {"sweep": DRAWN | {"seeds": 3}}, False),
        ({"seed": ""}, {"sweep": [DRAWN, {"grid": {"seed": [1, 2]}}]}, False),
        ({"seed": ""}, {"sweep": DRAWN, "search": POPULATION}, False),
    ],
)
def test_settings_that_are_computed_once(fields, content, once):
    spec = parse_job({"kernel": "train_rnn", **content}, "job")
    # A kernel with the field `g`, as `esn` has it, draws without a field `seed`.
    description = Description({}, fields=fields, draws="g" in fields)
    store = SimpleNamespace(job=SimpleNamespace(spec=spec), description=description)
    assert computes_once(store) == once


@pytest.mark.parametrize(
    ("content", "value", "found"),
    [
        ({"sweep": DRAWN}, 1.05e-4, "lower"),
        ({"search": OPTUNA}, 0.095, "upper"),
        ({"sweep": {"seeds": 3}, "search": POPULATION}, 1e-4, "lower"),
        ({"search": OPTUNA}, 1.1e-4, None),  # 1.4 % of the logarithm
        ({"sweep": {"grid": {"learning_rate": [1e-4, 1e-1]}}}, 1e-4, None),
    ],
)
def test_values_at_an_end_of_their_range(content, value, found):
    spec = parse_job({"kernel": "train_rnn", **content}, "job")
    expected = {} if found is None else {"learning_rate": found}
    assert ends(spec, {"learning_rate": value, "seed": 3}) == expected
