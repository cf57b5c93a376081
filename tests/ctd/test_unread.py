"""ctd.contract.evaluate: traced fields that no result depends on."""

import jax
import numpy as np
import pytest
from small import small

from ctd.batch import evaluated, precision, traced_columns
from ctd.kernel import inputs_of, static_of, traced_of

ADAM = {"learning_rate", "decay", "adam_eps"}


@pytest.mark.parametrize(
    ("given", "idle"),
    [
        ({}, {"anywhere", "reach", *ADAM}),
        ({"method": "adam"}, {"anywhere", "reach", "max_step"}),
        ({"region": "box", "anywhere": 0.2}, ADAM),
    ],
)
def test_settings_of_another_method_are_not_read(given, idle):
    """As the fields' descriptions say."""
    kernel, params = small("fixed_points")
    params = kernel.Params.model_validate(params.model_dump() | given)
    static = static_of(params)
    with precision(static):
        shared = kernel.load(inputs_of(params))
    columns = {k: np.asarray(v)[None] for k, v in traced_of(params)._asdict().items()}
    first = jax.tree.map(lambda leaf: leaf[0], traced_columns(type(params), columns, static.dtype))
    assert evaluated(kernel, static, shared, first).unread == idle
