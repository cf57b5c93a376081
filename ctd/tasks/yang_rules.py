"""The rules of Yang et al. 2019: times, stimuli and answer of one trial of each of the twenty tasks.

The numbers are those of the authors' `task.py` (gyyang/multitask). There all trials of a minibatch have the same
times; here each trial draws its own. A rule is a function of uniform numbers. All rules read the same numbers, so
that drawing a trial of one of twenty rules costs little more than drawing a trial of a given rule.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import pi
from typing import Annotated, NamedTuple

from pydantic import Field

from ctd.late import Array, Bool, Float, jax, jnp
from ctd.tasks.task import Timed, among

Positive = Annotated[float, Field(gt=0)]
Durations = Annotated[tuple[Positive, ...], Field(min_length=1)]

CATEGORIES = [pi * (0.1 + 0.2 * k) for k in range(10)]
"""Stimulus directions of dmcgo and dmcnogo (rad); directions below pi are one category, those above it the other."""

OWN_RESPONSE = (200, 400, 600)
"""Times after go of dmcgo and dmcnogo (ms), which do not take `response`."""


class Draws(NamedTuple):
    """Independent uniform numbers in [0, 1), from which a rule makes a trial."""

    times: Array
    """(5,) for the durations of the epochs."""
    direction: Float[Array, ""]
    """For the first stimulus."""
    distance: Float[Array, ""]
    """For the angle between both stimuli."""
    side: Float[Array, ""]
    """For the sign of that angle."""
    modality: Array
    """(2,) for the first and the second stimulus."""
    mean: Array
    """(2,) for the mean strength in either modality."""
    coherence: Array
    """(2,) for the strength's difference between the stimuli, in either modality."""
    sign: Array
    """(2,) for the sign of that difference."""
    difference: Array
    """(2,) for the strength's difference between the modalities, of the first and the second stimulus."""
    larger: Array
    """(2,) for the sign of that difference."""

    @classmethod
    def of(cls, key: Array, dtype: jax.typing.DTypeLike) -> Draws:
        """Draw all numbers at once."""
        u = jax.random.uniform(key, (20,), dtype)
        return cls(u[:5], u[5], u[6], u[7], u[8:10], u[10:12], u[12:14], u[14:16], u[16:18], u[18:])


class Plan(NamedTuple):
    """The course of one trial; times are step numbers."""

    on: Array
    """(2,) start of each stimulus."""
    off: Array
    """(2,) end of each stimulus."""
    direction: Array
    """(2,) direction of each stimulus (rad)."""
    strength: Float[Array, "stimulus modality"]
    cue_off: Array
    """End of the fixation cue."""
    go: Array
    """Start of the response."""
    end: Array
    """End of the trial."""
    responds: Bool[Array, ""]
    """True: the answer is a direction; false: the network keeps fixating."""
    answer: Float[Array, ""]
    """The direction of the answer (rad)."""


class Experiment(Timed):
    """Durations and strengths that the rules share."""

    time_scale: float = Field(1.0, gt=0, description="factor of all durations")
    stimulus: Durations = Field(
        (200, 400, 600), description="durations of the stimulus of go and delayed tasks (ms)"
    )
    delay: Durations = Field(
        (200, 400, 800, 1600), description="times between stimulus and response (ms)"
    )
    decision: Durations = Field(
        (400, 800, 1600), description="durations of both stimuli of dm, contextdm, multidm (ms)"
    )
    response: Positive = Field(
        500.0, description="time after go (ms); for dmcgo and dmcnogo it is 200, 400 or 600"
    )
    coherences: Durations = Field(
        (0.01, 0.02, 0.04, 0.08), description="coherences of stimuli shown together"
    )
    delayed_coherences: Durations = Field(
        (0.08, 0.16, 0.32), description="coherences of stimuli shown one after the other"
    )

    def steps(self, ms: float) -> int:
        """Whole steps in a duration (ms), which `time_scale` scales first."""
        return super().steps(ms * self.time_scale)

    def one_of(self, u: Array, ms: tuple[float, ...]) -> Array:
        """Choose one of these durations (ms) by u in [0, 1): steps."""
        return among(u, [self.steps(one) for one in ms])

    def between(self, u: Array, low: float, high: float) -> Array:
        """Choose a duration from low to high (ms) by u in [0, 1): steps."""
        ms = low + u * (high - low)
        # 1e-6 as in `Timed.steps`: rounding must not take a step off a multiple of dt.
        return jnp.floor(ms * (self.time_scale / self.dt) + 1e-6).astype(int)


def _pair(draws: Draws) -> Array:
    """Directions (2,) of two stimuli, 90 to 180 degrees apart to either side (rad)."""
    side = jnp.where(draws.side < 0.5, 1, -1)
    apart = side * pi * (0.5 + draws.distance)
    return jnp.stack([2 * pi * draws.direction, (2 * pi * draws.direction + apart) % (2 * pi)])


def _one_modality(u: Array) -> Array:
    """Strengths (2,): 1 in one of the modalities, 0 in the other."""
    return jnp.where(u < 0.5, jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0])).astype(u.dtype)


def _go(exp: Experiment, draws: Draws, kind: str, anti: bool) -> Plan:
    """Plan a go task: look at the stimulus (anti: away from it).

    kind: react: at once; fd: at go, while the stimulus is shown; delay: at go, after a delay.
    """
    t = draws.times
    if kind == "react":
        on = go = exp.between(t[0], 500, 2500)
    elif kind == "fd":
        on = exp.between(t[0], 300, 700)
        go = on + exp.between(t[1], 500, 1500)
    else:
        on = exp.one_of(t[0], (300, 500, 700))
    end = go + exp.steps(exp.response) if kind != "delay" else on
    off = end
    if kind == "delay":
        off = on + exp.one_of(t[1], exp.stimulus)
        go = off + exp.one_of(t[2], exp.delay)
        end = go + exp.steps(exp.response)
    direction = 2 * pi * draws.direction
    strength = _one_modality(draws.modality[0])
    # The second stimulus is never shown: it begins and ends at the end of the trial.
    return Plan(
        jnp.stack([on, end]), jnp.stack([off, end]), jnp.stack([direction, direction]),
        jnp.stack([strength, jnp.zeros_like(strength)]),
        end if kind == "react" else go, go, end, jnp.array(True),
        (direction + pi * anti) % (2 * pi),
    )  # fmt: skip


def _strengths(draws: Draws, coherences: tuple[float, ...], attended: int | str) -> Array:
    """Strengths (stimulus, modality): m + c and m - c in each modality, c of either sign; attended: see `_decide`."""
    dtype = draws.mean.dtype
    mean = 0.8 + 0.4 * draws.mean
    coherence = among(draws.coherence, coherences, dtype) * jnp.where(draws.sign < 0.5, 1, -1)
    both = jnp.stack([mean + coherence, mean - coherence])
    # dm1, dm2 and the contexts compare the stimuli in one modality at a time.
    if attended != "multi":
        return both
    # The sum over the modalities is 2 of_stimulus, whatever their difference: neither alone tells the answer.
    of_stimulus = both[:, 0]
    share = (0.2 + 0.6 * draws.difference) * jnp.where(draws.larger < 0.5, 1, -1)
    half = of_stimulus * share / 2
    return jnp.stack([of_stimulus + half, of_stimulus - half], axis=1)


def _decide(
    exp: Experiment, draws: Draws, delayed: bool, shown: int | str, attended: int | str
) -> Plan:
    """Plan a decision: look at the stronger of two stimuli.

    Args:
        delayed: the stimuli come one after the other, not together.
        shown: modality 0, modality 1, or "both".
        attended: the modality that decides, or "multi": the sum of both, which differ by 20 to 80 %.
    """
    t = draws.times
    if delayed:
        first_on = exp.one_of(t[0], (200, 400, 600))
        first_off = first_on + exp.one_of(t[1], exp.stimulus)
        second_on = first_off + exp.one_of(t[2], exp.delay)
        second_off = second_on + exp.one_of(t[3], exp.stimulus)
        on, off = jnp.stack([first_on, second_on]), jnp.stack([first_off, second_off])
        # After both stimuli there is a short wait of random length: the network cannot anticipate go.
        go = second_off + exp.between(t[4], 100, 300)
    else:
        start = exp.between(t[0], 100, 400)
        go = start + exp.one_of(t[1], exp.decision)
        on, off = jnp.stack([start, start]), jnp.stack([go, go])
    strength = _strengths(draws, exp.delayed_coherences if delayed else exp.coherences, attended)
    # dm1 and dm2 show one modality; the other one is silent.
    if shown != "both":
        strength = strength * jnp.eye(2, dtype=strength.dtype)[shown]
    value = strength.sum(axis=1) if attended == "multi" else strength[:, attended]
    direction = _pair(draws)
    answer = jnp.where(value[0] > value[1], direction[0], direction[1])
    end = go + exp.steps(exp.response)
    return Plan(on, off, direction, strength, go, go, end, jnp.array(True), answer)


def _match(exp: Experiment, draws: Draws, category: bool, on_match: bool) -> Plan:
    """Plan a match task: look at the second stimulus if it matches the first (on_match), or if it does not.

    category: stimuli match in category, below or above pi; else in direction.
    """
    t = draws.times
    on = exp.one_of(t[0], (200, 400, 600))
    off = on + exp.one_of(t[1], exp.stimulus)
    go = off + exp.one_of(t[2], exp.delay)
    if category:
        dtype = t.dtype
        direction = among(jnp.stack([draws.direction, draws.distance]), CATEGORIES, dtype)
        match = (direction[0] < pi) == (direction[1] < pi)
        end = go + exp.one_of(t[3], OWN_RESPONSE)
    else:
        match = draws.sign[0] < 0.5
        side = jnp.where(draws.side < 0.5, 1, -1)
        # A non-match lies 20 to 340 degrees away.
        apart = side * pi * (1 / 9 + draws.distance * 16 / 9)
        first = 2 * pi * draws.direction
        direction = jnp.stack([first, jnp.where(match, first, (first + apart) % (2 * pi))])
        end = go + exp.steps(exp.response)
    strength = jnp.stack([_one_modality(u) for u in draws.modality])
    on_off = jnp.stack([on, go]), jnp.stack([off, end])
    return Plan(*on_off, direction, strength, end, go, end, match == on_match, direction[1])


RULES: dict[str, Callable[[Experiment, Draws], Plan]] = {
    "fdgo": partial(_go, kind="fd", anti=False),
    "reactgo": partial(_go, kind="react", anti=False),
    "delaygo": partial(_go, kind="delay", anti=False),
    "fdanti": partial(_go, kind="fd", anti=True),
    "reactanti": partial(_go, kind="react", anti=True),
    "delayanti": partial(_go, kind="delay", anti=True),
    "dm1": partial(_decide, delayed=False, shown=0, attended=0),
    "dm2": partial(_decide, delayed=False, shown=1, attended=1),
    "contextdm1": partial(_decide, delayed=False, shown="both", attended=0),
    "contextdm2": partial(_decide, delayed=False, shown="both", attended=1),
    "multidm": partial(_decide, delayed=False, shown="both", attended="multi"),
    "delaydm1": partial(_decide, delayed=True, shown=0, attended=0),
    "delaydm2": partial(_decide, delayed=True, shown=1, attended=1),
    "contextdelaydm1": partial(_decide, delayed=True, shown="both", attended=0),
    "contextdelaydm2": partial(_decide, delayed=True, shown="both", attended=1),
    "multidelaydm": partial(_decide, delayed=True, shown="both", attended="multi"),
    "dmsgo": partial(_match, category=False, on_match=True),
    "dmsnogo": partial(_match, category=False, on_match=False),
    "dmcgo": partial(_match, category=True, on_match=True),
    "dmcnogo": partial(_match, category=True, on_match=False),
}
"""Rule -> the function that plans its trials, in the order of the rule inputs."""


def epochs(rule: str) -> set[str]:
    """The fields of `Experiment` that give durations of a rule."""
    if rule.startswith("dmc"):
        return {"stimulus", "delay"}
    if rule.startswith("dms") or "delay" in rule:
        return {"stimulus", "delay", "response"}
    return {"response"} if rule.endswith(("go", "anti")) else {"decision", "response"}


def longest(exp: Experiment, rule: str) -> int:
    """Steps of the longest trial of a rule."""
    many = lambda ms: max(map(exp.steps, ms))
    response = exp.steps(exp.response)
    if rule in ("fdgo", "fdanti"):
        return exp.steps(700) + exp.steps(1500) + response
    if rule in ("reactgo", "reactanti"):
        return exp.steps(2500) + response
    if rule in ("delaygo", "delayanti"):
        return exp.steps(700) + many(exp.stimulus) + many(exp.delay) + response
    if rule in ("dmsgo", "dmsnogo", "dmcgo", "dmcnogo"):
        end = exp.steps(600) if rule.startswith("dmc") else response
        return exp.steps(600) + many(exp.stimulus) + many(exp.delay) + end
    if "delay" in rule:
        both = 2 * many(exp.stimulus) + many(exp.delay)
        return exp.steps(600) + both + exp.steps(300) + response
    return exp.steps(400) + many(exp.decision) + response
