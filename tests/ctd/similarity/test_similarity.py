"""Rows of the matrix, what is made of it, and what is refused."""

import h5py
import numpy as np
import pytest
from messages import refused
from scipy.spatial.distance import cdist
from small import drawn

from ctd.batch import precision
from ctd.cells import get_cell
from ctd.data import write_hdf5
from ctd.kernel import inputs_of
from ctd.late import Late
from ctd.similarity import compare
from ctd.similarity.analysis import classical_mds, clusters, explained, silhouette
from ctd.similarity.features import Features, features_of, load
from ctd.similarity.kernel import n_pairs
from ctd.similarity.networks import MOST, annotate, check_count, read_annotations
from ctd.similarity.params import Comparison
from ctd.similarity.plots import pictures, plots, shown_parameter
from ctd.similarity.summary import Options, joined, tables
from ctd.weights import write_named

metrics = Late("sklearn.metrics")
RNG = np.random.default_rng(0)


@pytest.mark.parametrize("n", [2, 3, 8, 9])
def test_rows_have_each_pair_once(n):
    pairs = [
        frozenset((row, (row + 1 + k) % n)) for row in range(n) for k in range(int(n_pairs(n, row)))
    ]
    assert len(pairs) == len(set(pairs)) == n * (n - 1) // 2
    assert int(n_pairs(n, n)) == 0


# --- what is made of a matrix ---------------------------------------------------------------------

PLANE = RNG.normal(size=(12, 2)) + np.repeat([[0, 0], [9, 0], [0, 9]], 4, axis=0)
APART = cdist(PLANE, PLANE)


def test_embedding_has_the_distances_of_points_in_a_plane():
    points, share = classical_mds(APART, 3)
    np.testing.assert_allclose(cdist(points[:, :2], points[:, :2]), APART, atol=1e-12)
    np.testing.assert_allclose([share[:2].sum(), share[2]], [1, 0], atol=1e-12)


def test_clusters_are_those_of_the_plane():
    found = clusters(APART, "average", None)
    assert [len(set(found.cluster[k : k + 4])) for k in (0, 4, 8)] == [1, 1, 1]
    assert sorted(set(found.cluster)) == [0, 1, 2]
    assert (np.diff(found.cluster[found.order]) >= 0).all()
    labels = RNG.integers(0, 4, 12)
    expected = metrics.silhouette_score(APART, labels, metric="precomputed")
    assert silhouette(APART, labels) == pytest.approx(expected, abs=1e-12)


def test_clusters_are_as_many_as_asked_where_merges_tie():
    two = np.ones((4, 4)) - np.kron(np.eye(2), np.ones((2, 2)))
    for distances in (two, 1 - np.eye(4)):
        for k in range(1, 5):
            assert len(set(clusters(distances, "average", k).cluster)) == k
    assert clusters(two, "average", 2).cluster.tolist() == [0, 0, 1, 1]


def test_equal_distances_explain_nothing():
    assert np.isnan(explained(0.1 * (1 - np.eye(5)), np.arange(5.0), 9, 0)).all()


def test_explained_by_numbers_is_that_of_a_regression():
    y = RNG.normal(size=10)
    x = y + RNG.normal(size=10)
    apart = np.abs(y[:, None] - y)
    found = explained(apart, x, 999, 0)
    assert found.r2 == pytest.approx(np.corrcoef(x, y)[0, 1] ** 2, abs=1e-12)
    upper = np.triu_indices(10, 1)
    mantel = np.corrcoef(apart[upper], np.abs(x[:, None] - x)[upper])[0, 1]
    assert found.mantel == pytest.approx(mantel, abs=1e-12)


def test_explained_by_groups_is_that_of_permanova():
    """R2 = 1 - SS_within / SS_total (Anderson 2001); of 12! orders, 3! (4!)^3 leave the groups as they are."""
    groups = np.repeat(["a", "b", "c"], 4)
    same = groups[:, None] == groups
    within, total = (APART[same] ** 2).sum() / 8, (APART**2).sum() / 24
    found = explained(APART, groups, 999, 0)
    assert found.r2 == pytest.approx(1 - within / total, abs=1e-12)
    assert found.r2_p == found.mantel_p == 0.001
    # Of the 24 orders of four points, 8 part them into the same two pairs.
    four = cdist([[0.0], [1], [10], [11]], [[0.0], [1], [10], [11]])
    p = explained(four, np.array(["a", "a", "b", "b"]), 20_000, 1).r2_p
    assert p == pytest.approx(1 / 3, abs=4 * np.sqrt(2 / 9 / 20_000))


def test_seeds_are_groups_without_an_order():
    """Their R2 is that of PERMANOVA, as of words; by many values it is large by chance, so that the table begins with the smallest p."""
    kinds, seeds = ["gru", "lstm"] * 6, np.repeat(range(6), 2)
    told = annotate(
        list("abcdefghijkl"),
        [{"cell": c, "seed": int(s), "n": int(s)} for c, s in zip(kinds, seeds, strict=True)],
    )
    assert told.labels[2] == "cell=gru seed=1 n=1"
    place = np.tile([0.0, 1], 6)[:, None] + RNG.normal(size=(12, 30))
    apart = cdist(place, place)
    found = tables(apart, told, np.full(12, 3), Options())
    r2 = dict(zip(found["parameter"], found["r2"], strict=True))
    same = seeds[:, None] == seeds
    assert r2["seed"] == pytest.approx(1 - (apart[same] ** 2).sum() / 4 / (apart**2).sum() * 24, abs=1e-12)  # fmt: skip
    assert r2["seed"] > r2["cell"]
    assert found["parameter"][0] == shown_parameter(found) == "cell"


def test_missing_pairs_are_told():
    """Rows beyond the last network are none; where a row is missing, nothing is made of the rest of the matrix."""
    nan = np.nan
    rows = {"distance": np.array([[nan, 0.5, nan], [nan, nan, nan]])}
    matrix = joined(np.array([0, 7]), rows, 3)
    np.testing.assert_array_equal(matrix, [[0, 0.5, nan], [0.5, 0, nan], [nan, nan, 0]])
    told = annotate(["a", "b", "c"], [{"cell": c} for c in ("gru", "gru", "lstm")])
    found = tables(matrix, told, np.full(3, 4), Options())
    assert (found["n_missing"], found["network"][0]) == (2, "0: cell=gru")
    assert np.isnan(found["embedding"]).all()
    assert np.isnan(found["r2"]).all()
    (plot,) = pictures(found, told, "cka")
    assert plot.note == (
        "2 of 3 pairs without a distance, so that nothing is embedded or clustered; sweep matrix_row over {range: 3}."
    )


def test_equal_networks_are_said_to_lie_on_one_another():
    apart = 1.0 - np.pad(np.ones((3, 3)), (0, 1))
    apart[3, 3] = 0
    told = annotate(list("abcd"), [{}] * 4)
    *_, embedding = pictures(tables(apart, told, np.ones(4), Options()), told, "topology")
    assert embedding.note == "3 networks are at distance 0 from each other; their marks coincide."


# --- compare --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def compared():
    """Three turns of each of two shapes, of unequal widths."""
    shapes = [RNG.normal(size=(2, 20, n)) for n in (4, 6)]
    turns = [np.linalg.qr(RNG.normal(size=(6, 6)))[0] for _ in range(3)]
    states = {
        f"{k}{j}": x @ turn[: x.shape[-1]]
        for k, x in enumerate(shapes)
        for j, turn in enumerate(turns)
    }
    states["00"] = shapes[0]
    cells = ["gru"] * 3 + ["lstm"] * 3
    return compare(states, parameters={"cell": cells, "seed": [0, 1, 2] * 2}, n_permutations=99)


def test_compare_tells_shapes_apart(compared):
    same = np.kron(np.eye(2), np.ones((3, 3))) > 0
    np.testing.assert_allclose(compared.distances[same], 0, atol=1e-6)
    assert compared.distances[~same].min() > 0.1
    np.testing.assert_array_equal(compared.distances, compared.distances.T)
    assert compared.tables["cluster"].tolist() in ([0, 0, 0, 1, 1, 1], [1, 1, 1, 0, 0, 0])
    assert compared.tables["parameter"].tolist() == ["cell", "seed"]
    assert compared.tables["r2"][0] == pytest.approx(1, abs=1e-6)
    assert compared.tables["components"].tolist() == [4, 6, 6, 6, 6, 6]
    assert compared.labels[4] == "cell=lstm seed=1"
    assert "6 networks, 15 pairs" in repr(compared)


@pytest.mark.parametrize("method", ["cca", "svcca"])
def test_compare_takes_turns_of_one_network(method):
    """Whose mean correlation rounds to above 1 for some of the seeds: SciPy clusters no distance below 0."""
    for seed in (2, 3):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(10, 20, 8)).cumsum(axis=1)
        turn = np.linalg.qr(rng.normal(size=(8, 8)))[0]
        apart = compare([x, x @ turn, x[..., ::-1]], method, n_permutations=9).distances
        assert apart.min() >= 0
        np.testing.assert_allclose(apart, 0, atol=1e-12)


def test_compare_draws_what_it_found(compared):
    matrix, dendrogram, embedding = compared.figure().axes[:3]
    assert "4 to 6 units" in matrix.texts[0].get_text()
    rows = [t.get_text() for t in matrix.get_yticklabels()]
    assert [row.partition(":")[0] for row in rows] == [
        t.get_text() for t in matrix.get_xticklabels()
    ]
    assert [compared.labels[int(row[0])] for row in rows] == [row[3:] for row in rows]
    assert dendrogram.get_title() == "Clusters of networks: 2"
    assert [t.get_text() for t in embedding.get_legend().get_texts()] == ["cell gru", "cell lstm"]
    assert "explains 100%" in embedding.texts[0].get_text()


@pytest.mark.parametrize("n", [3, 12])
def test_networks_without_parameters_are_told_apart_in_the_embedding(n):
    """By a colour and a name each; if there are many, by the numbers of the matrix's rows."""
    told, apart = annotate([f"net{k}" for k in range(n)], [{}] * n), 1 - np.eye(n)
    *_, plot = pictures(tables(apart, told, np.ones(n, int), Options()), told, "cka")
    names = [layer.name for layer in plot.layers]
    assert names == (["net0", "net1", "net2"] if n == 3 else [""])
    assert all(layer.numbered for layer in plot.layers) == (n == 12)


# --- what is refused ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("networks")
    for name, n_in in (("one", 1), ("two", 2)):
        weights = drawn(get_cell("vanilla").shapes(3, n_in), 3, 1, 0)
        write_named(folder / f"{name}.h5", weights, {"cell": "vanilla", "g": 0.5 * n_in, "item": 7})
    states = {
        "x": RNG.normal(size=(2, 10, 3)),
        "short": np.ones((2, 9, 3)),
        "still": np.ones((2, 10, 3)),
        "nan": np.full((2, 10, 3), np.nan),
        "flat": np.ones(10),
    }
    for name, value in states.items():
        write_hdf5(folder / f"{name}.h5", {"states": value})
    write_hdf5(folder / "p.h5", {name: np.zeros(3) for name in ("n_unstable", "n_marginal", "q")})
    write_hdf5(folder / "g.h5", {"leads": np.zeros((2, 2))})
    return folder


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"weights": ["one"], "states": ["x"]},
        {"states": ["x"]},
        {"weights": ["one", "two"]},
        {"weights": ["one", "one"], "cell": "gru"},
        {"states": ["x", "short"]},
        {"states": ["x", "nan"]},
        {"states": ["x", "still"]},
        {"states": ["x", "flat"]},
        {"states": ["x", "x"], "dataset": "hiddens"},
        {"states": ["x", "x"], "method": "cca", "n_samples": 5},
        {"states": ["x", "x"], "method": "dsa", "n_delays": 10},
        {"states": ["x", "x"], "method": "dsa", "n_delays": 2},
        {"states": ["x", "x"], "method": "topology"},
        {"points": ["x", "x"], "method": "topology"},
        {"points": ["x"], "weights": ["one", "two"], "method": "topology"},
        {"points": ["p", "p"], "method": "connections"},
        {"points": ["p", "p"], "connections": ["x", "x"], "method": "connections"},
        {"points": ["p", "p"], "connections": ["g", "g"], "method": "connections"},
    ],
)  # fmt: skip
def test_load_refuses(files, given):
    kinds = ("weights", "states", "points", "connections")
    given = {k: [str(files / f"{v}.h5") for v in vs] if k in kinds else vs for k, vs in given.items()}  # fmt: skip
    inputs = inputs_of(Comparison(**given))
    with refused(ValueError), precision(inputs):
        load(inputs)


def test_too_many_networks_are_refused():
    with refused(ValueError):
        check_count(MOST + 1)


def test_networks_beyond_the_memory_are_refused_at_the_first_one():
    shown = iter([(RNG.normal(size=(1, 1000, 100)), None)])
    with refused(ValueError):
        features_of(inputs_of(Comparison()), range(10**9), shown)


def test_compare_refuses():
    points = {"n_unstable": [0, 1], "n_marginal": [0, 0], "q": [0, 0]}
    states = RNG.normal(size=(30, 3))
    silent = np.maximum(states - 2, 0)
    for networks, method in (
        ([points, points], "connections"),
        ([states, states], "topology"),
        ([silent, states], "rbf_cka"),
    ):
        with refused(ValueError):
            compare(networks, method)
    with refused(ValueError):
        compare([*RNG.normal(size=(2, 9, 3))], parameters={"cell": ["gru"]})


def test_files_of_keras_tell_nothing(tmp_path):
    for name in "ab":
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file.attrs.update(layer_names=np.array([b"gru", name.encode()]), backend="tensorflow")
    found = read_annotations(
        inputs_of(Comparison(weights=[str(tmp_path / f"{name}.h5") for name in "ab"]))
    )
    assert found == (("a", "b"), {})


def test_items_of_stores_beside_a_file_are_named_as_the_job_names_them(tmp_path):
    for name, attributes in (
        ("net", {}),
        ("6567e84a-0-weights", {"address": "/lab/train.zarr::0", "seed": 4}),
    ):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file.attrs.update(attributes)
    paths = [str(tmp_path / f"{name}.h5") for name in ("net", "6567e84a-0-weights")]
    assert read_annotations(inputs_of(Comparison(weights=paths))) == (("net", "train.zarr::0"), {})


def test_tables_of_points_are_named_by_their_addresses(tmp_path):
    """By the store's name alone, where each has another one."""
    for name in ("a0", "b0", "b1"):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file.attrs["address"] = f"/lab/sweeps/{name[0]}.zarr/gathered/{name[1]}"
    of = lambda *names: read_annotations(
        inputs_of(Comparison(method="topology", points=[str(tmp_path / f"{k}.h5") for k in names]))
    )
    assert of("a0", "b1") == (("a", "b"), {})
    assert of("b0", "b1") == (("b.zarr/gathered/0", "b.zarr/gathered/1"), {})


def test_pictures_say_that_some_states_are_compared(files):
    states = [str(files / f"{name}.h5") for name in ("x", "nan")]
    found = tables(1 - np.eye(2), annotate("ab", [{}, {}]), np.full(2, 3), Options())
    shared = Features(np.zeros((2, 50, 3)), np.full(2, 3))
    of = lambda **given: plots(inputs_of(Comparison(states=states, **given)), shared, {}, {}, found)
    some = "50 states of each network, evenly spread, are compared (n_samples)."
    assert [of(n_samples=50)[0].note, of()[0].note] == [some, ""]


def test_known_is_what_differs(files):
    """Files tell with which parameters their networks were made; those that say nothing are named by their file."""
    told = read_annotations(
        inputs_of(Comparison(weights=[str(files / f"{v}.h5") for v in ("one", "two")]))
    )
    assert told.labels == ("g=0.5", "g=1")
    assert told.parameters["g"].tolist() == [0.5, 1]
    named = read_annotations(
        inputs_of(Comparison(states=[str(files / f"{v}.h5") for v in ("x", "nan")]))
    )
    assert (named.labels, named.parameters) == (("x", "nan"), {})
