"""The reduction: an atlas judges its classifier on members that it has not seen; with an atlas, recordings are placed."""

from __future__ import annotations

from functools import cache

import numpy as np
from pydantic import BaseModel, Field

from ctd.kernel import Var, View
from ctd.mechanisms.atlas import read_atlas
from ctd.mechanisms.classifier import Placer, calibration_error, train, unseen
from ctd.mechanisms.families import NAMES
from ctd.mechanisms.fits import Evidence, Shared
from ctd.rows import Columns

NONE, UNSURE, UNKNOWN = "none of these", "cannot be told", "unknown"
UNJUDGED = "not judged"
"""The likeliest mechanism of an atlas's recording whose size lacks members of some mechanism."""


class Options(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """Settings of the classifier."""

    l2: float = Field(0.01, gt=0)
    """penalty on the classifier's squared weights"""
    sure: float = Field(0.5, ge=0, le=1)
    """least probability of a verdict; below it, the verdict is `cannot be told`"""
    none_prior: float = Field(0.1, gt=0, lt=1)
    """probability of `none of these` before anything is known"""
    folds: int = Field(5, gt=1)
    """parts into which members are divided; each part is judged by a classifier trained on the others"""


TRUST = ("none_found", "accuracy", "accuracy_plain", "calibration")
"""Columns of an atlas's table of sizes that say how far to trust a verdict."""
_R, _S, _C = ("recording",), ("size",), ("left_out",)
REDUCED = {
    "recording_item": Var(_R, "1", "item of the recording in its stage"),
    "true": Var(_R, "1", "mechanism that made it", usual=UNKNOWN),
    "verdict": Var(_R, "1", "mechanism with the largest probability, if that is at least `sure`"),
    "verdict_right": Var(
        _R, "1", "of the atlas's recordings of this size with this verdict, unseen by their classifier, how many it is true of: `6 of 9`; empty "
        "unless the verdict is a mechanism",
    ),
    "fit_agreement": Var(_R, "1", "mean cosine of what two fits do at the recording's states"),
    "atlas_none_found": Var(_R, "1", "none_found of the atlas at this size (table size)"),
    "likeliest": Var(_R, "1", "what has the largest probability, whether or not that is a verdict"),
    "probability": Var(_R, "1", "the largest probability: that of `likeliest`"),
    "runner_up": Var(_R, "1", "what has the second largest probability"),
    "runner_up_probability": Var(_R, "1", "that probability"),
    "atlas_recordings": Var(_R, "1", "recordings of the atlas, of the nearest size, by which it was placed"),
    **{f"atlas_{name}": Var(_R, "1", f"{name} of the atlas at this size (table size)") for name in TRUST[1:]},
    **{f"p_{name}": Var(_R, "1", f"probability of {name}, by a classifier that has not seen this member") for name in NAMES},
    "p_none": Var(_R, "1", "probability of none of these"),
    "n_neurons": Var(_R, "1", "neurons"),
    "n_trials": Var(_R, "1", "trials"),
    "mean_count": Var(_R, "1", "mean spike count of a bin"),
    "noise": Var(_R, "1", "sd of the noise on the mechanism's state; meaningless if the mechanism is unknown"),
    "smoothing": Var(_R, "1", "sd (bins) of the Gaussian that smoothed its counts"),
    "mechanism": Var(_R, "1", "number of the mechanism; -1: unknown"),
    "member": Var(_R, "1", "seed of the member"),
    "evidence": Var((*_R, "feature"), "1", "what was read off its fits, median"),
    "plain_evidence": Var((*_R, "plain_feature"), "1", "features without a model"),
    "place": Var((*_R, "component"), "1", "principal components of standardised evidence; the components are those of the atlas"),
    "atlas_place": Var(("atlas_recording", "component"), "1", "these components of the atlas' recordings"),
    "atlas_true": Var(("atlas_recording",), "1", "mechanism that made them"),
    "size_n_neurons": Var(_S, "1", "neurons"),
    "size_n_trials": Var(_S, "1", "trials"),
    "size_noise": Var(_S, "1", "sd of the noise on the mechanism's state in a bin"),
    "size_mean_count": Var(_S, "1", "mean spike count of a bin, as it came out"),
    "recordings": Var(_S, "1", "recordings of this size"),
    "accuracy": Var(_S, "1", "share of unseen members whose mechanism is the likeliest, by what was read off fits"),
    "accuracy_truth": Var(_S, "1", "the same by what is read off the true system: upper bound"),
    "accuracy_plain": Var(_S, "1", "the same by features without a model: lower bound"),
    "accuracy_both": Var(_S, "1", "the same by fits and features without a model together"),
    "told": Var(_S, "1", "share of unseen members with a verdict"),
    "right": Var(_S, "1", "share of these verdicts that are right"),
    "calibration": Var(_S, "1", "expected calibration error of the largest probability"),
    "none_found": Var(_S, "1", "share of recordings that come out as none of these if their mechanism was left out, mean over mechanisms"),
    "none_found_truth": Var(_S, "1", "the same by what is read off the true system: upper bound"),
    "confusion": Var(("size", "mechanism_made", "mechanism_said"), "1", "unseen members by mechanism and by the likeliest"),
    "left_out": Var(_C, "1", "mechanism that the classifier was trained without"),
    "called_none": Var(_C, "1", "share of its recordings that come out as none of these"),
    "called_unsure": Var(_C, "1", "share that cannot be told"),
    "called_none_truth": Var(_C, "1", "share called none of these by what is read off the true system: upper bound"),
    "digest": Var((), "1", "digest of the settings of the fits"),
    "n_bins": Var((), "1", "bins of a trial"),
    "n_factors": Var((), "1", "factors of a recording"),
    "trials_read": Var((), "1", "trials of each recording that features were read from"),
}  # fmt: skip


def reduce(
    inputs: View[Evidence], shared: Shared, columns: Columns, results: Columns, options: Options
) -> dict[str, np.ndarray]:
    """The table of recordings; for an atlas also accuracy by size, confusion, and the verdicts on mechanisms that were left out."""
    number = np.asarray(columns["recording"])
    if number.max() + 1 < len(shared.x):
        raise ValueError(
            f"recording: there are {len(shared.x)} recordings, but the items end with the one of number {number.max()}; sweep "
            f"recording: {{range: {len(shared.x)}}} or more, or wait if the run has not ended"
        )
    rows = np.flatnonzero((number < len(shared.x)) & (np.asarray(results["outcome"]) == 0))
    # The table is in the order of recordings, whatever the order of items.
    rows = rows[np.argsort(number[rows], kind="stable")]
    about = {name: values[number[rows]] for name, values in shared.about.items()}
    same = ("n_neurons", "n_trials", "mean_count", "noise", "smoothing", "mechanism", "member")
    _, _, trials_read, n_bins, _ = shared.x.shape
    sizes = {"trials_read": trials_read, "n_bins": n_bins, "n_factors": shared.n_factors}
    table = {
        "recording_item": about["item"],
        "true": _names(about["mechanism"]),
        **{name: about[name] for name in same},
        "fit_agreement": np.asarray(results["agreement"], float)[rows],
        "evidence": np.asarray(results["features"], float)[rows],
        "plain_evidence": np.asarray(about["plain"], float),
        "digest": shared.digest,
        **{name: np.asarray(n) for name, n in sizes.items()},
    }
    if inputs.atlas is not None:
        return table | place(inputs.atlas, table, options)
    truth = about.get("truth")
    return table if truth is None else table | judge(table, np.asarray(truth, float), options)


def _names(mechanism: np.ndarray) -> np.ndarray:
    return np.asarray([NAMES[k] if k >= 0 else UNKNOWN for k in mechanism])


def _evidence(table: Columns) -> np.ndarray:
    """(recording, feature) the features of recordings that the classifier sees."""
    # Fisher's transform spreads cosines near 1, such as .9 and .99.
    agreement = np.arctanh(np.clip(table["fit_agreement"], -0.999, 0.999))
    return np.column_stack([table["evidence"], agreement])


def _called(classes: np.ndarray) -> np.ndarray:
    """(class + 1,) the names of the classes, then of none of them, in the order of probabilities."""
    return np.asarray([*(NAMES[k] for k in classes), NONE])


def verdicts(p: np.ndarray, classes: np.ndarray, sure: float) -> dict[str, np.ndarray]:
    """The columns of probabilities (recording, class + 1) and of the verdict."""
    top, largest = p.argmax(1), p.max(1)
    likeliest = np.where(np.isnan(largest), UNJUDGED, _called(classes)[top])
    verdict = np.where(largest < sure, UNSURE, likeliest)
    probabilities = {f"p_{name}": np.zeros(len(p)) for name in NAMES}
    probabilities |= {f"p_{NAMES[k]}": p[:, j] for j, k in enumerate(classes)}
    verdict_columns = {"verdict": verdict, "likeliest": likeliest, "probability": largest}
    return probabilities | {"p_none": p[:, -1]} | verdict_columns


def right_counts(verdict: np.ndarray, unseen_verdict: np.ndarray, true: np.ndarray) -> np.ndarray:
    """(recording,) how many unseen recordings with the same verdict it is true of, and of how many: `6 of 9`; empty unless it is a mechanism.

    unseen_verdict, true: verdicts on unseen recordings of an atlas, and their mechanisms. None of them can be `none of these`.

    >>> print(*right_counts(np.array(["ring", "line"]), np.array(["ring", "ring"]), np.array(["ring", "plane"])), sep=", ")
    1 of 2, 0 of 0
    """
    count = lambda name: ((true == name) & (unseen_verdict == name)).sum()
    texts = {name: f"{count(name)} of {(unseen_verdict == name).sum()}" for name in NAMES}
    return np.asarray([texts.get(name, "") for name in verdict.tolist()], str)


def _components(x: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """(recording, 2) the first principal components of features, standardised as those of the `reference` recordings."""
    mean, sd = np.nan_to_num(reference.mean(0)), np.nan_to_num(reference.std(0))
    scaled = lambda v: np.nan_to_num(np.clip((v - mean) / np.where(sd > 1e-6, sd, np.inf), -4, 4))
    # The last axes have the largest variance.
    _, axes = np.linalg.eigh(scaled(reference).T @ scaled(reference))
    return scaled(x) @ axes[:, ::-1][:, :2]


# --- an atlas -------------------------------------------------------------------------------------


def _folds(member: np.ndarray, n: int) -> np.ndarray:
    """The fold of each recording: recordings of one seed, at all sizes, are in one."""
    return np.unique(member, return_inverse=True)[1].ravel() % n  # seeds are dealt out to the folds


def _unseen(x: np.ndarray, y: np.ndarray, fold: np.ndarray, options: Options) -> np.ndarray:
    """(recording, class + 1) probabilities, each by a placer that was trained and calibrated without its fold."""
    p = np.zeros((len(y), len(np.unique(y)) + 1))
    for number in np.unique(fold):
        out = fold == number
        p[out] = _trained(x[~out], y[~out], fold[~out], options).probabilities(x[out])
    return p


def _trained(x: np.ndarray, y: np.ndarray, fold: np.ndarray, options: Options) -> Placer:
    return train(x, y, fold, options.l2, options.none_prior)


def _sizes(table: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """(size, 3) neurons, trials and -noise of each size of recordings, the last with the least noise; (recording,) the size of each."""
    kinds = np.column_stack([table["n_neurons"], table["n_trials"], -np.nan_to_num(table["noise"])])
    sizes, of_recording = np.unique(kinds, axis=0, return_inverse=True)
    return sizes, of_recording.ravel()


def judge(
    table: dict[str, np.ndarray], truth: np.ndarray, options: Options
) -> dict[str, np.ndarray]:
    """Judge an atlas by members that its classifier has not seen: verdicts, and the table of sizes; {} if there are too few members."""
    y, fold = table["mechanism"], _folds(table["member"], options.folds)
    x, classes = _evidence(table), np.unique(y)
    sizes, of_size = _sizes(table)
    # A class must be in the training set of every fold, and of the folds within.
    folds_of = lambda size, k: len(np.unique(fold[(of_size == size) & (y == k)]))
    judged = [s for s in range(len(sizes)) if all(folds_of(s, k) >= 3 for k in classes)]
    # Where one class is left out, two must remain.
    if len(classes) < 3 or not judged or (y < 0).any():
        return {}
    p = np.full((len(y), len(classes) + 1), np.nan)
    none_found, right = np.full(len(y), np.nan), np.full(len(y), "", "U20")
    rows = []
    for k in judged:
        members = of_size == k
        p[members] = _unseen(x[members], y[members], fold[members], options)
        called = _left_out(x[members], y[members], fold[members], options)
        called_truth = _left_out(truth[members], y[members], fold[members], options)
        verdict = verdicts(p[members], classes, options.sure)["verdict"]
        right[members] = right_counts(verdict, verdict, _names(y[members]))
        none_found[members] = called[0].mean()
        plain = table["plain_evidence"][members]
        both = np.column_stack([x[members], plain])
        others = {"truth": truth[members], "plain": plain, "both": both}
        args = y[members], fold[members], options.l2
        more = {f"accuracy_{name}": _accuracy(values, *args) for name, values in others.items()} | {
            "none_found": called[0].mean(),
            "none_found_truth": called_truth[0].mean(),
            "size_n_neurons": int(sizes[k, 0]),
            "size_n_trials": int(sizes[k, 1]),
            "size_noise": -sizes[k, 2],
            "size_mean_count": table["mean_count"][members].mean(),
        }
        rows.append(_of_size(p[members], y[members], classes, options.sure) | more)
    return {
        **verdicts(p, classes, options.sure),
        "verdict_right": right,
        "atlas_none_found": none_found,
        "place": _components(x, x),
        **{name: np.asarray([row[name] for row in rows]) for name in rows[0]},
        # These are of the largest recordings, which come last.
        "left_out": _names(classes),
        "called_none": called[0],
        "called_unsure": called[1],
        "called_none_truth": called_truth[0],
    }


def _accuracy(x: np.ndarray, y: np.ndarray, fold: np.ndarray, l2: float) -> float:
    """Share of recordings whose mechanism is the likeliest to a classifier that has not seen their fold."""
    _, label = np.unique(y, return_inverse=True)
    logits, _ = unseen(x, label, fold, l2)
    return float((logits.argmax(1) == label).mean())


def _of_size(
    p: np.ndarray, y: np.ndarray, classes: np.ndarray, sure: float
) -> dict[str, float | int | np.ndarray]:
    """Accuracy, verdicts and confusion of the unseen members of one size."""
    likeliest = classes[p[:, :-1].argmax(1)]
    is_judged = p.max(1) >= sure
    right = np.append(classes, -2)[p.argmax(1)] == y  # `none` is nobody's label; -1 is unknown
    return {
        "recordings": len(y),
        "accuracy": (likeliest == y).mean(),
        "told": is_judged.mean(),
        "right": right[is_judged].mean() if is_judged.any() else np.nan,
        "calibration": calibration_error(p.max(1), right),
        "confusion": (y[:, None] == classes).T.astype(int) @ (likeliest[:, None] == classes),
    }


def _left_out(x: np.ndarray, y: np.ndarray, fold: np.ndarray, options: Options) -> np.ndarray:
    """(2, class) shares of each mechanism's recordings that come out as none and as unsure if no placer knows it."""
    shares = []
    for label in np.unique(y):
        # The mechanism is not among the classes of this placer.
        out = y == label
        p = _trained(x[~out], y[~out], fold[~out], options).probabilities(x[out])
        unsure = p.max(1) < options.sure
        none = (p.argmax(1) == p.shape[1] - 1) & ~unsure
        shares.append([none.mean(), unsure.mean()])
    return np.asarray(shares).T


# --- a recording of one's own ---------------------------------------------------------------------


def place(path: str, table: dict[str, np.ndarray], options: Options) -> dict[str, np.ndarray]:
    """Place recordings by the atlas in the file `path`: their verdicts, and the accuracy of such verdicts in the atlas."""
    atlas = read_atlas(path)
    # Judged sizes have enough members of all mechanisms.
    sizes = np.column_stack([atlas["size_n_neurons"], atlas["size_n_trials"]])
    size_of = np.column_stack([atlas["n_neurons"], atlas["n_trials"]])
    x, atlas_evidence = _evidence(table), _evidence(atlas)
    classes = np.unique(atlas["mechanism"])

    @cache
    def trained(size: int) -> tuple[Placer, int]:
        """(a placer, the number of recordings of the atlas, of this size, that it was trained on)."""
        members = (size_of == sizes[size]).all(1)
        y, fold = atlas["mechanism"][members], _folds(atlas["member"][members], options.folds)
        for mechanism in classes:
            if len(np.unique(fold[y == mechanism])) < 2:
                raise ValueError(
                    f"folds: {options.folds} given, of which one has all members of {NAMES[mechanism]}; give the atlas's own"
                )
        return _trained(atlas_evidence[members], y, fold, options), members.sum()

    p, (nearest, used) = np.zeros((len(x), len(classes) + 1)), np.zeros((2, len(x)), int)
    for k, mine in enumerate(zip(table["n_neurons"], table["n_trials"], strict=True)):
        # Recordings of the nearest size place it, since accuracy depends on size.
        apart = np.abs(np.log(sizes / mine)).sum(1)
        # The noise of the recording is unknown: of all levels at this size, take the one with the lowest accuracy.
        levels = np.flatnonzero(apart == apart.min())
        nearest[k] = levels[atlas["accuracy"][levels].argmin()]
        placer, used[k] = trained(int(nearest[k]))
        p[k] = placer.probabilities(x[k : k + 1])[0]
    names = _called(classes)
    columns = verdicts(p, classes, options.sure)
    columns |= {
        "verdict_right": _atlas_counts(atlas, columns["verdict"], nearest, options),
        "runner_up": names[p.argsort(1)[:, -2]],
        "runner_up_probability": np.sort(p, 1)[:, -2],
        "atlas_recordings": used,
        **{f"atlas_{name}": atlas[name][nearest] for name in TRUST},
    }
    around = {
        "atlas_place": _components(atlas_evidence, atlas_evidence),
        "atlas_true": _names(atlas["mechanism"]),
    }
    return columns | around | {"place": _components(x, atlas_evidence)}


def _atlas_counts(
    atlas: dict[str, np.ndarray], verdict: np.ndarray, size: np.ndarray, options: Options
) -> np.ndarray:
    """(recording,) `right_counts` by the recordings of the atlas of the nearest size. size: rows of its sizes."""
    classes = np.unique(atlas["mechanism"])
    p = np.column_stack([atlas[f"p_{name}"] for name in (*_names(classes), "none")])
    unseen_verdict, true = verdicts(p, classes, options.sure)["verdict"], _names(atlas["mechanism"])
    counts = np.full(len(verdict), "", "U20")
    for k in np.unique(size):
        same = [
            np.isclose(atlas[name], atlas[f"size_{name}"][k], equal_nan=True)
            for name in ("n_neurons", "n_trials", "noise")
        ]
        of_size = np.logical_and.reduce(same)
        counts[size == k] = right_counts(verdict[size == k], unseen_verdict[of_size], true[of_size])
    return counts
