"""The rules of Yang et al. 2019: times, stimuli and answer of one trial of each of the twenty tasks.

The numbers are those of the authors' `task.py` (gyyang/multitask). There all trials of a minibatch have the same
times; here each trial draws its own. A rule says which epochs follow one another, and what is shown and answered in them, as a
function of uniform numbers. All rules read the same numbers, so that drawing a trial of one of twenty rules costs little
more than drawing a trial of a given rule.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import pi
from typing import Annotated, NamedTuple

from pydantic import Field

from ctd.late import Array, Bool, Float, jax, jnp
from ctd.tasks.task import Epoch, Timed, choose

Positive = Annotated[float, Field(gt=0)]
Durations = Annotated[tuple[Positive, ...], Field(min_length=1)]

CATEGORIES = [pi * (0.1 + 0.2 * k) for k in range(10)]
"""Stimulus directions of dmcgo and dmcnogo (rad); directions below pi are one category, those above it the other."""


class Span(NamedTuple):
    """The durations of an epoch of any length from `shortest` to `longest` (ms)."""

    shortest: float
    longest: float


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
    def from_key(cls, key: Array, dtype: jax.typing.DTypeLike) -> Draws:
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

    def ends(self, epochs: tuple[Epoch, ...], u: Array) -> list[Array]:
        """The step at which each of successive epochs ends, their durations chosen by the numbers u in [0, 1)."""
        ends: list[Array] = []
        now = jnp.zeros((), int)
        for k, epoch in enumerate(epochs):
            if isinstance(epoch, Span):
                duration = epoch.shortest + u[k] * (epoch.longest - epoch.shortest)
                # 1e-6 as in `Timed.steps`: rounding must not take a step off a multiple of dt.
                now += jnp.floor(duration * (self.time_scale / self.dt) + 1e-6).astype(int)
            else:
                steps = [self.steps(ms) for ms in self.durations(epoch)]
                now += choose(u[k], steps) if len(steps) > 1 else steps[0]
            ends.append(now)
        return ends


def _pair(draws: Draws) -> Array:
    """Directions (2,) of two stimuli, 90 to 180 degrees apart to either side (rad)."""
    side = jnp.where(draws.side < 0.5, 1, -1)
    apart = side * pi * (0.5 + draws.distance)
    return jnp.stack([2 * pi * draws.direction, (2 * pi * draws.direction + apart) % (2 * pi)])


def _one_modality(u: Array) -> Array:
    """Strengths (2,): 1 in one of the modalities, 0 in the other."""
    return jnp.where(u < 0.5, jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0])).astype(u.dtype)


def _go(exp: Experiment, draws: Draws, ends: list[Array], anti: bool) -> Plan:
    """Plan a go task: look at the stimulus (anti: away from it), at once, while it is shown, or after a delay."""
    del exp
    on, (go, end) = ends[0], ends[-2:]
    off = ends[1] if len(ends) == 4 else end
    direction = 2 * pi * draws.direction
    strength = _one_modality(draws.modality[0])
    # The second stimulus is never shown: it begins and ends at the end of the trial.
    return Plan(
        jnp.stack([on, end]), jnp.stack([off, end]), jnp.stack([direction, direction]),
        jnp.stack([strength, jnp.zeros_like(strength)]),
        end if on is go else go, go, end, jnp.array(True),
        (direction + pi * anti) % (2 * pi),
    )  # fmt: skip


def _strengths(draws: Draws, coherences: tuple[float, ...], attended: int | None) -> Array:
    """Strengths (stimulus, modality): m + c and m - c in each modality, c of either sign; attended: see `_decide`."""
    dtype = draws.mean.dtype
    mean = 0.8 + 0.4 * draws.mean
    coherence = choose(draws.coherence, coherences, dtype) * jnp.where(draws.sign < 0.5, 1, -1)
    both = jnp.stack([mean + coherence, mean - coherence])
    # dm1, dm2 and the contexts compare the stimuli in one modality at a time.
    if attended is not None:
        return both
    # The sum over the modalities is 2 of_stimulus, whatever their difference, so that the network needs both for the answer.
    of_stimulus = both[:, 0]
    share = (0.2 + 0.6 * draws.difference) * jnp.where(draws.larger < 0.5, 1, -1)
    half = of_stimulus * share / 2
    return jnp.stack([of_stimulus + half, of_stimulus - half], axis=1)


def _decide(
    exp: Experiment, draws: Draws, ends: list[Array], attended: int | None, alone: bool = False
) -> Plan:
    """Plan a decision: look at the stronger of two stimuli, shown together or one after the other.

    Args:
        attended: the modality that decides, or None: the sum of both, which differ by 20 to 80 %.
        alone: the other modality is silent.
    """
    go, end = ends[-2:]
    delayed = len(ends) == len(DELAYED)
    on, off = (ends[0:4:2], ends[1:4:2]) if delayed else ([ends[0]] * 2, [go] * 2)
    strength = _strengths(draws, exp.delayed_coherences if delayed else exp.coherences, attended)
    if alone:
        strength = strength * jnp.eye(2, dtype=strength.dtype)[attended]
    value = strength.sum(axis=1) if attended is None else strength[:, attended]
    direction = _pair(draws)
    answer = jnp.where(value[0] > value[1], direction[0], direction[1])
    return Plan(
        jnp.stack(on), jnp.stack(off), direction, strength, go, go, end, jnp.array(True), answer
    )


def _match(
    exp: Experiment, draws: Draws, ends: list[Array], category: bool, on_match: bool
) -> Plan:
    """Plan a match task: look at the second stimulus if it matches the first (on_match), or if it does not.

    category: stimuli match in category, below or above pi; else in direction.
    """
    del exp
    on, off, go, end = ends
    if category:
        both = jnp.stack([draws.direction, draws.distance])
        direction = choose(both, CATEGORIES, both.dtype)
        match = (direction[0] < pi) == (direction[1] < pi)
    else:
        match = draws.sign[0] < 0.5
        side = jnp.where(draws.side < 0.5, 1, -1)
        # A non-match lies 20 to 340 degrees away.
        apart = side * pi * (1 / 9 + draws.distance * 16 / 9)
        first = 2 * pi * draws.direction
        direction = jnp.stack([first, jnp.where(match, first, (first + apart) % (2 * pi))])
    strength = jnp.stack([_one_modality(u) for u in draws.modality])
    on_off = jnp.stack([on, go]), jnp.stack([off, end])
    return Plan(*on_off, direction, strength, end, go, end, match == on_match, direction[1])


class Rule(NamedTuple):
    """One of the tasks."""

    epochs: tuple[Epoch, ...]
    """The events until the end of a trial, the response last."""
    plan: Callable[[Experiment, Draws, list[Array]], Plan]
    """(experiment, uniform numbers, the step at which each epoch ends) -> the course of a trial."""

    def __call__(self, exp: Experiment, draws: Draws) -> Plan:
        """Plan a trial."""
        return self.plan(exp, draws, exp.ends(self.epochs, draws.times))


REACT: tuple[Epoch, ...] = (Span(500, 2500), "response")
FIXED: tuple[Epoch, ...] = (Span(300, 700), Span(500, 1500), "response")
DELAY: tuple[Epoch, ...] = ((300, 500, 700), "stimulus", "delay", "response")
TOGETHER: tuple[Epoch, ...] = (Span(100, 400), "decision", "response")
# After both stimuli there is a short wait of random length: the network cannot anticipate go.
DELAYED: tuple[Epoch, ...] = (
    (200, 400, 600), "stimulus", "delay", "stimulus", Span(100, 300), "response",
)  # fmt: skip
MATCH: tuple[Epoch, ...] = ((200, 400, 600), "stimulus", "delay", "response")
CATEGORY: tuple[Epoch, ...] = ((200, 400, 600), "stimulus", "delay", (200, 400, 600))

RULES: dict[str, Rule] = {
    "fdgo": Rule(FIXED, partial(_go, anti=False)),
    "reactgo": Rule(REACT, partial(_go, anti=False)),
    "delaygo": Rule(DELAY, partial(_go, anti=False)),
    "fdanti": Rule(FIXED, partial(_go, anti=True)),
    "reactanti": Rule(REACT, partial(_go, anti=True)),
    "delayanti": Rule(DELAY, partial(_go, anti=True)),
    "dm1": Rule(TOGETHER, partial(_decide, attended=0, alone=True)),
    "dm2": Rule(TOGETHER, partial(_decide, attended=1, alone=True)),
    "contextdm1": Rule(TOGETHER, partial(_decide, attended=0)),
    "contextdm2": Rule(TOGETHER, partial(_decide, attended=1)),
    "multidm": Rule(TOGETHER, partial(_decide, attended=None)),
    "delaydm1": Rule(DELAYED, partial(_decide, attended=0, alone=True)),
    "delaydm2": Rule(DELAYED, partial(_decide, attended=1, alone=True)),
    "contextdelaydm1": Rule(DELAYED, partial(_decide, attended=0)),
    "contextdelaydm2": Rule(DELAYED, partial(_decide, attended=1)),
    "multidelaydm": Rule(DELAYED, partial(_decide, attended=None)),
    "dmsgo": Rule(MATCH, partial(_match, category=False, on_match=True)),
    "dmsnogo": Rule(MATCH, partial(_match, category=False, on_match=False)),
    "dmcgo": Rule(CATEGORY, partial(_match, category=True, on_match=True)),
    "dmcnogo": Rule(CATEGORY, partial(_match, category=True, on_match=False)),
}
"""Rule by name, in the order of the rule inputs."""
