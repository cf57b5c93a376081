"""The classifier beside scikit-learn's, its calibration, and what it calls none of these."""

import numpy as np
import pytest
from messages import refused
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression

from ctd.data import write_hdf5
from ctd.mechanisms.classifier import calibration_error, fit, none_odds, temperature, train
from ctd.mechanisms.evidence import kernel
from ctd.mechanisms.families import NAMES
from ctd.mechanisms.fits import Shared
from ctd.mechanisms.summary import NONE, UNJUDGED, UNSURE, Options, judge, place, verdicts

TRUSTED = {
    "recordings": 20,
    "none_found": 0.7,
    "accuracy": 0.9,
    "accuracy_plain": 0.8,
    "calibration": 0.1,
}
"""Columns of an atlas's table of sizes."""


def clouds(apart, n=40, seed=0, d=4):
    """(x, y, fold): three classes of n samples around corners `apart` from each other."""
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(3), n)
    return apart * np.eye(3, d)[y] + rng.normal(size=(3 * n, d)), y, np.tile(np.arange(n) % 5, 3)


def test_probabilities_of_scikit_learn():
    x, y, _ = clouds(2.0)
    ours = fit(x, y, 0.05)
    theirs = LogisticRegression(C=1 / (0.05 * len(y)), tol=1e-10, max_iter=5000)
    s = ours.standardised(x)
    # Ours hardly penalises offsets, theirs not at all.
    np.testing.assert_allclose(
        softmax(ours.logits(x), 1), theirs.fit(s, y).predict_proba(s), atol=2e-4
    )


def test_a_feature_that_is_nan_throughout_says_nothing():
    x, y, _ = clouds(2.0)
    model = fit(np.column_stack([x, np.full(len(x), np.nan)]), y, 0.05)
    with_it = model.logits(np.column_stack([x, np.full(len(x), np.nan)]))
    np.testing.assert_allclose(with_it, fit(x, y, 0.05).logits(x), atol=1e-8)


def test_temperature_undoes_a_scale():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(5000, 4)) * 2
    y = np.asarray([rng.choice(4, p=p) for p in softmax(logits, 1)])
    assert temperature(3 * logits, y) == pytest.approx(3, rel=0.1)


def test_probabilities_are_calibrated():
    """Overlapping classes and few samples: the error on 3,000 new ones."""
    x, y, fold = clouds(1.5, n=30)
    placer = train(x, y, fold, l2=1e-4, prior=0.01)
    x, y, _ = clouds(1.5, n=1000, seed=1)
    p = placer.probabilities(x)
    np.testing.assert_allclose(p.sum(1), 1)
    assert calibration_error(p.max(1), p.argmax(1) == y) < 0.08
    raw = softmax(placer.model.logits(x), 1)
    assert calibration_error(raw.max(1), raw.argmax(1) == y) > calibration_error(p.max(1), p.argmax(1) == y)  # fmt: skip


def test_what_lies_far_from_all_is_none_of_these():
    x, y, fold = clouds(8.0)
    placer = train(x, y, fold)
    near, far = placer.probabilities(x)[:, -1], placer.probabilities(-20 + 0 * x[:5])[:, -1]
    assert near.mean() < 0.1
    assert far.min() > 0.9


def test_what_lies_between_tight_classes_is_none_of_these():
    """A distance that is usual within a wide class is strange beside a tight one."""
    rng = np.random.default_rng(0)
    y, fold = np.repeat(np.arange(3), 40), np.tile(np.arange(40) % 5, 3)
    centre, spread = np.asarray([[0, 0], [4, 0], [2, 40]]), np.asarray([0.3, 0.3, 4])
    x = centre[y] + spread[y, None] * rng.normal(size=(120, 2))
    placer = train(x, y, fold)
    between = placer.probabilities(np.asarray([[2.0, 0.0]]))[0, -1]
    distance = placer.model.distances(np.asarray([[2.0, 0.0]]))[0, :2]
    assert distance.max() < np.median(placer.model.distances(x[y == 2])[:, 2])
    assert between > 0.9
    assert placer.probabilities(x)[:, -1].mean() < 0.1


def test_odds_of_none_follow_the_prior_where_distances_say_nothing():
    same = np.zeros(50)
    slope, offset = none_odds(same, same, 0.2)
    assert offset + 0 * slope == pytest.approx(np.log(0.2 / 0.8), abs=1e-2)


def test_verdicts():
    p = np.asarray([[0.7, 0.2, 0.1], [0.4, 0.4, 0.2], [0.1, 0.1, 0.8]])
    found = verdicts(p, np.asarray([1, 3]), 0.5)
    assert found["verdict"].tolist() == [NAMES[1], UNSURE, NONE]
    assert found["p_plane"].tolist() == [0.2, 0.4, 0.1]
    assert not found["p_ring"].any()


def table_of(x, y, member):
    n = len(y)
    return {
        "mechanism": y, "member": member, "n_neurons": np.full(n, 30), "n_trials": np.full(n, 50), "mean_count": np.full(n, 0.5),
        "noise": np.full(n, 0.02), "fit_agreement": np.zeros(n), **{f"p_{name}": np.zeros(n) for name in (*NAMES, "none")}, "evidence": x, "plain_evidence": np.random.default_rng(0).normal(size=(n, 2)),
    }  # fmt: skip


def test_an_atlas_is_judged_on_members_that_it_has_not_seen():
    x, y, _ = clouds(8.0, n=10)
    found = judge(table_of(x, y, np.tile(np.arange(10), 3)), x, Options())
    assert found["accuracy"].tolist() == found["accuracy_truth"].tolist() == [1.0]
    assert found["accuracy_plain"][0] < 0.7
    np.testing.assert_array_equal(found["confusion"][0], 10 * np.eye(3))
    assert found["called_none"].min() > 0.9
    assert found["called_none"].tolist() == found["called_none_truth"].tolist()
    assert found["none_found"][0] == pytest.approx(found["called_none"].mean())
    # Labels that say nothing: chance for members that it has not seen.
    shuffled = np.random.default_rng(0).permutation(y)
    found = judge(table_of(x, shuffled, np.tile(np.arange(10), 3)), x, Options())
    assert found["accuracy"][0] < 0.65


def test_levels_of_noise_are_judged_apart_and_place_together(tmp_path):
    """At the higher level labels say nothing. A recording's level is unknown: all place it, and the worst is told."""
    x, y, _ = clouds(8.0, n=10)
    member = np.tile(np.arange(10), 3)
    shuffled = np.random.default_rng(0).permutation(y)
    noisy = table_of(x, shuffled, member) | {"noise": np.full(30, 0.2)}
    clean = table_of(x, y, member)
    table = {name: np.concatenate([noisy[name], clean[name]]) for name in clean}
    found = judge(table, np.concatenate([x, x]), Options())
    assert found["size_noise"].tolist() == [0.2, 0.02]
    assert found["accuracy"][0] < 0.65 < found["accuracy"][1]
    np.testing.assert_array_equal(found["confusion"][-1], 10 * np.eye(3))
    write_hdf5(
        tmp_path / "atlas.h5", table | {k: v for k, v in found.items() if v.dtype.kind in "if"}
    )
    mine = {name: values[:1] for name, values in clean.items()}
    placed = place(str(tmp_path / "atlas.h5"), mine, Options())
    assert placed["atlas_recordings"].tolist() == [60]
    assert placed["atlas_accuracy"].tolist() == [found["accuracy"][0]]
    found["true"] = np.asarray(NAMES)[table["mechanism"]]
    by_noise = kernel.display.plots(None, None, {}, {}, found)[2]
    assert by_noise.x.ticks == ["0.02", "0.2"]
    assert [layer.name for layer in by_noise.layers] == ["30 x 50", "30 x 50, plain features"]
    fits, plain = by_noise.layers
    assert fits.y.tolist() == found["accuracy"][::-1].tolist()
    assert plain.dashed
    assert plain.y.tolist() == found["accuracy_plain"][::-1].tolist()


@pytest.mark.parametrize(("n", "mechanisms"), [(2, 3), (4, 2), (4, 0)])
def test_too_few_members_are_not_judged(n, mechanisms):
    """Two of each, and two mechanisms, of which one is left where the other is left out."""
    x, y, _ = clouds(8.0, n=n)
    some = y < mechanisms
    table = table_of(x[some], y[some], np.tile(np.arange(n), 3)[some])
    assert judge(table, x[some], Options()) == {}


@pytest.mark.parametrize("lost", [[0], [26], [0, 1, 2], [9, 19, 20]])
def test_a_size_that_lost_a_member_is_left_out(lost):
    """Three seeds at three sizes; where one of a mechanism is lost, no fold within a fold has it."""
    x, y, _ = clouds(8.0, n=9)
    table = table_of(x, y, np.tile(np.arange(9) // 3, 3))
    table["n_neurons"] = np.tile(np.arange(9) % 3, 3)
    kept = np.setdiff1d(np.arange(27), lost)
    some = {name: values[kept] for name, values in table.items()}
    found = judge(some, x[kept], Options())
    left_out = {int(table["n_neurons"][k]) for k in lost}
    if len(left_out) == 3:
        assert found == {}
        return
    assert found["size_n_neurons"].tolist() == sorted({0, 1, 2} - left_out)
    # One of nine members lies at the rim of its cloud.
    assert (found["accuracy"] >= 8 / 9).all()
    unjudged = np.isin(some["n_neurons"], [*left_out])
    assert (found["verdict"] == UNJUDGED).tolist() == unjudged.tolist()
    assert np.isnan(found["p_none"]).tolist() == unjudged.tolist()


def test_recordings_beyond_the_last_item_are_not_left_out_silently():
    shared = Shared(np.zeros((5, 1, 2, 4, 3)), {}, None, {}, None, None)
    results = {"outcome": np.zeros(4, int)}
    with refused(ValueError):
        kernel.tables.reduce(None, shared, {"recording": np.arange(4)}, results, Options())


def test_recordings_are_placed_by_those_of_the_nearest_size(tmp_path):
    """At 30 neurons classes lie at corners, at 100 at the opposite ones: the same evidence means another mechanism."""
    x, y, _ = clouds(8.0, n=10)
    member = np.tile(np.arange(10), 3)
    small, large = (
        table_of(x, y, member),
        table_of(x, 2 - y, member) | {"n_neurons": np.full(30, 100)},
    )
    atlas = {name: np.concatenate([small[name], large[name]]) for name in small}
    judged = {name: [1, value] for name, value in TRUSTED.items()}
    judged |= {
        "size_n_neurons": [30, 100], "size_n_trials": [50, 50], "size_noise": [0.02] * 2,
    }  # fmt: skip
    write_hdf5(tmp_path / "atlas.h5", atlas | judged)
    mine = {name: values[:1] for name, values in small.items()}
    for neurons, verdict in ((35, NAMES[0]), (90, NAMES[2])):
        mine["n_neurons"] = np.asarray([neurons])
        found = place(str(tmp_path / "atlas.h5"), mine, Options())
        assert found["verdict"].tolist() == [verdict]
        # What says how far to trust it is of the same size.
        expected = 1 if neurons == 35 else TRUSTED["accuracy"]
        assert found["atlas_accuracy"].tolist() == [expected]
    np.testing.assert_allclose(found["atlas_place"][0], found["place"][0])
    found["true"] = np.asarray(["unknown"])
    (plot,) = kernel.display.plots(None, None, {}, {}, found)
    assert [one.name for one in plot.layers] == [
        *(f"{NAMES[k]}, atlas" for k in range(3)),
        "unknown",
    ]
    assert plot.layers[-1].size is not None, "it is found among those of the atlas"
    # A size that was not judged places nothing; without any recording, nothing is placed.
    write_hdf5(
        tmp_path / "atlas.h5",
        atlas
        | {name: [value] for name, value in TRUSTED.items()}
        | {"size_n_neurons": [30], "size_n_trials": [50], "size_noise": [0.02]},
    )
    assert place(str(tmp_path / "atlas.h5"), mine, Options())["verdict"].tolist() == [NAMES[0]]
    none = {name: values[:0] for name, values in mine.items()}
    assert not place(str(tmp_path / "atlas.h5"), none, Options())["verdict"].size


def test_a_mechanism_whose_members_share_a_fold_is_told(tmp_path):
    x, y, _ = clouds(8.0, n=10)
    table = table_of(x, y, np.concatenate([2 * (np.arange(10) % 5), *[np.arange(10)] * 2]))
    judged = {name: [value] for name, value in TRUSTED.items()}
    judged |= {"size_n_neurons": [30], "size_n_trials": [50], "size_noise": [0.02]}
    write_hdf5(tmp_path / "atlas.h5", table | judged)
    mine = {name: values[:1] for name, values in table.items()}
    assert place(str(tmp_path / "atlas.h5"), mine, Options(folds=5))["verdict"].size
    with refused(ValueError):
        place(str(tmp_path / "atlas.h5"), mine, Options(folds=2))


def test_what_tells_of_a_verdict_stands_before_the_probabilities():
    """A terminal leaves out the last columns of a wide table."""
    names = [*kernel.tables.dims]
    for name in ("verdict", "runner_up", "fit_agreement", "atlas_accuracy"):
        assert names.index(name) < names.index(f"p_{NAMES[0]}")
