"""States, rates and counts of `spikes` against the tutorials' formulas in NumPy (tests/support/origin.py)."""

import numpy as np
import origin
import pytest
from networks import line_network
from stores import item_of

from ctd.data import write_hdf5


@pytest.mark.slow
def test_spikes_rates(job, tmp_path):
    """Stored states and rates by the origin's run from what is stored of inputs and initial states.

    To 1e-12: rounding of some ten operations a step over 25 steps. The initial states, on the line, have
    the moments of the origin's, drawn with NumPy, within five standard errors. Those at h0:
    tests/ctd/test_spikes.py.
    """
    params, n_eval = line_network(), 600
    write_hdf5(tmp_path / "net.h5", params)
    tree = job(
        "spikes",
        {"cell": "vanilla", "weights": "net.h5", "task": "integrator", "initial": "line"}
        | {"n_train": 3, "n_eval": n_eval, "step_s": 0.04, "max_rate": 80.0, "dtype": "float64"},
    )
    found = item_of(tree)
    starts = found["eval_initial_states"]
    for k in range(20):
        inputs = found["eval_inputs"][k]
        hiddens, outputs = origin.run_with_h0(origin.vrnn, params, inputs, starts[k])
        np.testing.assert_allclose(found["eval_states"][k], hiddens, rtol=0, atol=1e-12)
        np.testing.assert_allclose(found["eval_behavior"][k], outputs, rtol=0, atol=1e-12)
        expected = origin.spike_means(hiddens, 0.04, 80.0)
        np.testing.assert_allclose(found["eval_rates"][k], expected, rtol=0, atol=1e-12)
    assert len(np.unique(starts, axis=0)) == n_eval
    reached = origin.h0s_on_a_line(np.random.default_rng(3), params, n_eval)
    # Along the readout, and in every unit.
    for a, b in ((starts @ params["wO"].T, reached @ params["wO"].T), (starts, reached)):
        # Of a difference of means; and of SDs, for nearly normal numbers.
        assert (abs(a.mean(0) - b.mean(0)) < 5 * b.std(0) * (2 / n_eval) ** 0.5).all()
        assert (abs(a.std(0) - b.std(0)) < 5 * b.std(0) * (1 / n_eval) ** 0.5).all()
    # The test can fail: the network's own h0 is far from the mean state, in these errors.
    far = abs(params["h0"] - reached.mean(0)) / (reached.std(0) * (2 / n_eval) ** 0.5)
    assert far.max() > 5
    # Counts, over all units and bins: a Poisson sum is known to the root of its mean.
    mean = found["eval_rates"].sum()
    assert abs(found["eval"].sum() - mean) < 5 * mean**0.5
