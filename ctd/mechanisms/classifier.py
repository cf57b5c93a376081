"""A small classifier: multinomial logistic regression on standardised features, with calibrated probabilities and `none of these`.

    p(k | x) = softmax(W s(x) / T)_k,   s(x) = [features, standardised and cut off at +-CUT; 1]

W minimises the mean negative log likelihood + l2 |W|^2 / 2; T (temperature scaling, Guo, Pleiss, Sun & Weinberger 2017)
minimises that of predictions on folds that W has not seen.

`None of these` is judged by how far s(x) lies from the nearest class mean, in pooled deviations within classes (Mahalanobis distance,
Lee et al. 2018). Members of some classes lie farther from their mean than those of others, so the logarithm of the distance to class k is
taken relative to that of unseen members of k: `strangeness` = min_k (log d_k - m_k) / s_k. A logistic regression on it is fitted to
unseen members and to members of classes that were left out (none of these).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ctd.late import Float, Int, scipy

CUT = 4.0
"""Standardised features are cut off here: one that leaves the range of the atlas decides no more than one at its end."""

NEWTON = 50
"""Most steps of Newton's method; ten are usual."""

SHRINK = 0.5
"""Share of the pooled covariance that is its diagonal, since features are nearly as many as members of a class."""


class Model(NamedTuple):
    """A trained classifier."""

    mean: Float[np.ndarray, "feature"]
    sd: Float[np.ndarray, "feature"]
    weights: Float[np.ndarray, "class feature_and_1"]
    centres: Float[np.ndarray, "class feature"]
    precision: Float[np.ndarray, "feature feature"]
    """Inverse of the pooled covariance within classes."""

    def standardised(self, x: np.ndarray) -> np.ndarray:
        """s(x) without the 1; a feature that is NaN counts as average."""
        return np.clip(np.nan_to_num((x - self.mean) / self.sd), -CUT, CUT)

    def logits(self, x: np.ndarray) -> np.ndarray:
        """(sample, class) W s(x)."""
        return _with_one(self.standardised(x)) @ self.weights.T

    def distances(self, x: np.ndarray) -> np.ndarray:
        """(sample, class) logs of the Mahalanobis distances to the class means."""
        apart = self.standardised(x)[:, None] - self.centres
        squares = np.einsum("nkf,fg,nkg->nk", apart, self.precision, apart)
        return np.asarray(0.5 * np.log(squares + 1e-9))


class Placer(NamedTuple):
    """A classifier with its calibration."""

    model: Model
    temperature: float
    usual: Float[np.ndarray, "2 class"]
    """m_k and s_k: how far unseen members of each class lie from its mean."""
    none: tuple[float, float]
    """(slope, offset) of the log odds of `none of these` over the strangeness."""

    def probabilities(self, x: np.ndarray) -> np.ndarray:
        """(sample, class + 1) probabilities of the classes, and last of none of them."""
        p = scipy.special.softmax(self.model.logits(x) / self.temperature, axis=1)
        strange = strangeness(self.model.distances(x), self.usual)
        slope, offset = self.none
        none = 1 / (1 + np.exp(-np.clip(slope * strange + offset, -30, 30)))
        return np.column_stack([p * (1 - none[:, None]), none])


def _with_one(x: np.ndarray) -> np.ndarray:
    return np.column_stack([x, np.ones(len(x))])


def fit(
    x: Float[np.ndarray, "sample feature"], y: Int[np.ndarray, "sample"], l2: float | None
) -> Model:
    """Train on samples of the classes y = 0 ... k - 1, each of which must occur; without l2 for distances alone."""
    # A feature may be NaN throughout, such as the agreement of fits where each recording has one fit.
    finite = np.isfinite(x)
    filled, n = np.where(finite, x, 0), np.maximum(finite.sum(0), 1)
    mean = filled.sum(0) / n
    sd = np.sqrt((np.where(finite, filled - mean, 0) ** 2).sum(0) / n)
    # A feature that never changes carries no information.
    sd = np.where(sd > 1e-6, sd, np.inf)
    k, d = int(y.max()) + 1, x.shape[1]
    blank = Model(mean, sd, np.zeros((k, d + 1)), np.zeros((k, d)), np.eye(d))
    s = blank.standardised(x)
    centres = np.stack([s[y == j].mean(0) for j in range(k)])
    # Pooled covariance; k means are estimated, which leaves len(x) - k degrees of freedom.
    within = (s - centres[y]).T @ (s - centres[y]) / max(1, len(x) - k)
    # Features have variance 1 at most: a hundredth of that keeps the matrix invertible where one never changes.
    within = (1 - SHRINK) * within + SHRINK * np.diag(np.diag(within)) + 1e-2 * np.eye(d)
    weights = blank.weights if l2 is None else _regress(s, y, k, l2)
    return Model(mean, sd, weights, centres, np.linalg.inv(within))


def _regress(s: np.ndarray, y: np.ndarray, k: int, l2: float) -> np.ndarray:
    """(k, feature + 1) weights, by Newton's method: the loss is convex and has a few hundred parameters."""
    a, target, softmax = _with_one(s), np.eye(k)[y], scipy.special.softmax
    n, d = a.shape
    # The offset is hardly penalised: enough that the sum of all offsets, which changes nothing, has a minimum.
    penalty = l2 * np.append(np.ones(d - 1), 1e-3)

    def loss(w: np.ndarray, p: np.ndarray) -> float:
        return float(-np.mean(np.log(p[np.arange(n), y] + 1e-300)) + np.sum(penalty * w**2) / 2)

    w = np.zeros((k, d))
    p = softmax(a @ w.T, 1)
    for _ in range(NEWTON):
        gradient = (p - target).T @ a / n + penalty * w
        # The Hessian of softmax regression is the mean of (diag p - p p') times a a' (Kronecker product).
        curve = np.einsum("ni,ij->nij", p, np.eye(k)) - p[:, :, None] * p[:, None]
        products = (a[:, :, None] * a[:, None]).reshape(n, d * d)
        hessian = (curve.reshape(n, k * k).T @ products / n).reshape(k, k, d, d)
        hessian = hessian.swapaxes(1, 2).reshape(k * d, k * d) + np.diag(np.tile(penalty, k))
        move = np.linalg.solve(hessian, gradient.ravel()).reshape(k, d)
        before, size = loss(w, p), 1.0
        # Halved until the loss falls: a whole step may overshoot where classes are far apart.
        while size > 1e-4:
            p = softmax(a @ (w - size * move).T, 1)
            if loss(w - size * move, p) <= before:
                break
            size /= 2
        w = w - size * move
        if np.abs(size * move).max() < 1e-6:
            break
    return w


def temperature(logits: np.ndarray, y: np.ndarray) -> float:
    """The T between .2 and 20 at which softmax(logits / T) makes the labels y likeliest."""

    def loss(log_t: float) -> float:
        p = scipy.special.softmax(logits / np.exp(log_t), axis=1)
        return float(-np.mean(np.log(p[np.arange(len(y)), y] + 1e-300)))

    minimum = scipy.optimize.minimize_scalar(
        loss, bounds=(np.log(0.2), np.log(20)), method="bounded"
    )
    return float(np.exp(minimum.x))


def unseen(
    x: np.ndarray, y: np.ndarray, fold: np.ndarray, l2: float | None
) -> tuple[np.ndarray, np.ndarray]:
    """(logits, log distances), each (sample, class), by models that have not seen a sample's fold. fold: (sample,) numbers."""
    logits, distances = (np.zeros((len(y), int(y.max()) + 1)) for _ in range(2))
    for number in np.unique(fold):
        out = fold == number
        model = fit(x[~out], y[~out], l2)
        logits[out], distances[out] = model.logits(x[out]), model.distances(x[out])
    return logits, distances


def usual_distances(distances: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(2, class): mean and standard deviation of the log distances of each class's unseen members to its mean.

    distances: (sample, class), of unseen samples.
    """
    own_distances = [distances[y == k, k] for k in range(distances.shape[1])]
    variance = np.asarray([values.var() for values in own_distances])
    # A class has few members: half of its variance is that of all.
    variance = SHRINK * variance.mean() + (1 - SHRINK) * variance + 1e-6
    return np.stack([np.asarray([values.mean() for values in own_distances]), np.sqrt(variance)])


def strangeness(distances: np.ndarray, usual: np.ndarray) -> np.ndarray:
    """(sample,) least over classes of (log d_k - m_k) / s_k: 0 for a usual member of a class, large for what belongs to none."""
    return np.asarray(((distances - usual[0]) / usual[1]).min(1))


def left_out_strangeness(x: np.ndarray, y: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """(sample,) strangeness of the members of each class to a model of the other classes."""
    strange = np.zeros(len(y))
    for label in range(int(y.max()) + 1):
        out = y == label
        # The labels that remain close the gap.
        remaining = y[~out] - (y[~out] > label)
        usual = usual_distances(unseen(x[~out], remaining, fold[~out], None)[1], remaining)
        strange[out] = strangeness(fit(x[~out], remaining, None).distances(x[out]), usual)
    return strange


def none_odds(members: np.ndarray, none: np.ndarray, prior: float) -> tuple[float, float]:
    """(slope, offset) of a logistic regression of `none` against `members` on their strangeness, whatever their numbers.

    prior: the probability of `none` before the strangeness is known.
    """
    x = np.concatenate([members, none])
    target = np.repeat([0.0, 1.0], [len(members), len(none)])
    weight = np.repeat([(1 - prior) / len(members), prior / len(none)], [len(members), len(none)])

    def loss(v: np.ndarray) -> float:
        z = v[0] * x + v[1]
        # A slope below 0 would call what lies near none of these.
        # 1e-3 keeps the slope finite where the two groups do not overlap.
        return float(np.sum(weight * (np.logaddexp(0, z) - target * z)) + 1e-3 * v[0] ** 2)

    minimum = scipy.optimize.minimize(
        loss, np.array([1.0, 0.0]), method="L-BFGS-B", bounds=[(0, 20), (-100, 100)]
    )
    return float(minimum.x[0]), float(minimum.x[1])


def train(
    x: np.ndarray, labels: np.ndarray, fold: np.ndarray, l2: float = 0.01, prior: float = 0.1
) -> Placer:
    """Train and calibrate: members of one fold (the same seed) are never on both sides of a calibration.

    labels: (sample,) any integers; fold: (sample,) numbers, at least two.
    """
    _, y = np.unique(labels, return_inverse=True)
    logits, distances = unseen(x, y, fold, l2)
    usual = usual_distances(distances, y)
    members, none = strangeness(distances, usual), left_out_strangeness(x, y, fold)
    # Only predictions on unseen folds calibrate; the classifier itself is trained on all samples.
    t = temperature(logits, y)
    return Placer(fit(x, y, l2), t, usual, none_odds(members, none, prior))


def calibration_error(top: ArrayLike, right: ArrayLike, bins: int = 10) -> float:
    """Expected calibration error: mean |accuracy - mean probability| over bins of the largest probability, by their sizes.

    >>> calibration_error([0.9, 0.9, 0.9, 0.9], [True, True, True, False])  # right in 3 of 4
    0.15
    """
    p, ok = np.asarray(top, float), np.asarray(right, float)
    place = np.minimum((p * bins).astype(int), bins - 1)  # p = 1 belongs to the last bin
    gaps = [abs(ok[place == k].sum() - p[place == k].sum()) for k in np.unique(place)]
    return round(float(sum(gaps) / len(p)), 12)
