"""Decision and working-memory tasks with one output, timed as in LINT (Valente et al. 2022, lowrank_inference).

Durations are in ms; a step is 20 ms by default. Stimuli carry noise N(0, noise^2) at every step. The network answers by
its mean output over the response, which is right if it has the sign of the target.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field

from ctd.late import Array, Number, jax, jnp
from ctd.tasks.scores import same_sign
from ctd.tasks.task import Conditions, Timed, Trial

Ms = float


def _ordered(span: tuple[Ms, Ms]) -> tuple[Ms, Ms]:
    if not 0 <= span[0] <= span[1]:
        raise ValueError(
            f"{list(span)}: expected the shortest duration first, neither below 0, such as [500, 2000]"
        )
    return span


def _signed(values: tuple[float, ...]) -> tuple[float, ...]:
    if 0 in values or not values:
        raise ValueError(
            f"{list(values)}: expected one or more numbers, none of them 0, for which no answer is right"
        )
    return values


Span = Annotated[tuple[Ms, Ms], AfterValidator(_ordered)]
"""(shortest, longest) duration (ms)."""
Signed = Annotated[tuple[float, ...], AfterValidator(_signed)]
"""Numbers whose sign is the right answer."""
Hz = Annotated[int, Field(ge=-24, le=24)]
"""Difference of two frequencies from 10 to 34 Hz."""


class Choice(Timed):
    """The base of tasks with two answers, the sign of one output during the response."""

    n_out: ClassVar[int] = 1

    fixation: Ms = Field(100.0, ge=0, description="time before the first stimulus (ms)")
    response: Ms = Field(300.0, gt=0, description="time during which the output counts (ms)")
    noise: float = Field(0.03, ge=0, description="standard deviation of the noise on the stimuli")

    def success(self, trial: Trial, output: Array) -> Array:
        """True if the mean output over the response has the sign of the target."""
        return same_sign(trial, output)

    def ends(self) -> Iterator[int]:
        """The step at which each epoch before the response ends."""
        return accumulate(self.steps(getattr(self, name)) for name in self.epochs[:-1])

    def answered(self, inputs: Array, at: Number, answer: Array, condition: Array) -> Trial:
        """The trial whose target is `answer` for the response, from step `at` on, and which counts nowhere else."""
        counts = self.during(at, at + self.steps(self.response), inputs.dtype)
        return Trial(inputs, counts * answer, counts[:, 0], condition)

    def during(self, start: Number, end: Number, dtype: jax.typing.DTypeLike) -> Array:
        """An array (time, 1) that is 1 from step `start` to before step `end`, else 0."""
        steps = jnp.arange(self.length)[:, None]
        return ((steps >= start) & (steps < end)).astype(dtype)

    def noisy(self, key: Array, inputs: Array) -> Array:
        """Add noise N(0, noise^2) to inputs (time, n)."""
        return inputs + self.noise * jax.random.normal(key, inputs.shape, inputs.dtype)


class RandomDots(Choice):
    """Perceptual decision on random dots: report the sign of the motion coherence c.

    The input is scale c / 100 during the stimulus; after a delay, the target is sign(c) during the response.

    >>> task = RandomDots(coherences=(-8, 8))
    >>> trial = task.trial(jax.random.key(0), "float32")
    >>> trial.inputs.shape, task.conditions.values
    ((75, 1), (-8.0, 8.0))
    """

    name = "rdm"
    n_in: ClassVar[int] = 1
    epochs: ClassVar = ("fixation", "stimulus", "delay", "response")

    stimulus: Ms = Field(800.0, gt=0, description="duration of the stimulus (ms)")
    delay: Ms = Field(300.0, ge=0, description="time between stimulus and response (ms)")
    coherences: Signed = Field(
        (-16, -8, -4, -2, -1, 1, 2, 4, 8, 16), description="values of c (%), one per trial"
    )
    scale: float = Field(3.2, gt=0, description="input at coherence 100 %")

    @property
    def conditions(self) -> Conditions:
        return Conditions("coherence", tuple(sorted(set(map(float, self.coherences)))), choice=True)

    def trial(self, key: Array, dtype: jax.typing.DTypeLike) -> Trial:
        key_noise, key_choice = jax.random.split(key)
        values = self.conditions.values
        # Draw the condition's number, which the trial then reports.
        condition = jax.random.randint(key_choice, (), 0, len(values))
        coherence = jnp.asarray(values, dtype)[condition]
        start, end, at = self.ends()
        # Coherences are percentages: `scale` is the input at 100 %.
        inputs = self.during(start, end, dtype) * coherence * (self.scale / 100)
        return self.answered(self.noisy(key_noise, inputs), at, jnp.sign(coherence), condition)


class TwoStimuli(Choice):
    """The base of tasks with two stimuli, a delay of random length apart, and then the response."""

    epochs: ClassVar = ("fixation", "stimulus", "delay", "stimulus", "response")

    stimulus: Ms = Field(100.0, gt=0, description="duration of each stimulus (ms)")
    delay: Span = Field(
        (500.0, 2000.0), description="shortest and longest time between the stimuli (ms)"
    )

    def both(self, delay: Array, dtype: jax.typing.DTypeLike) -> tuple[Array, Array]:
        """Place both stimuli, `delay` steps apart: ((time, 2), 1 while each is shown; the step at which the second ends)."""
        length = self.steps(self.stimulus)
        starts = self.steps(self.fixation) + jnp.asarray([0, length + delay])
        return self.during(starts, starts + length, dtype), starts[1] + length


class Romo(TwoStimuli):
    """Parametric working memory: which of two frequencies, a delay apart, was higher (Romo et al. 1999)?

    f_1 and f_2 = f_1 + d lie between 10 and 34 Hz, d is one of `differences`; all pairs are equally frequent. The input
    is (f - 22) / 24 during each stimulus, the target of the response (f_1 - f_2) / 24.

    >>> Romo(differences=(-8, 8)).conditions
    Conditions(name='f1 - f2 (Hz)', values=(-8.0, 8.0), choice=True)
    """

    name = "romo"
    n_in: ClassVar[int] = 1

    response: Ms = Field(100.0, gt=0, description="time during which the output counts (ms)")
    noise: float = Field(0.01, ge=0, description="standard deviation of the noise on the stimuli")
    differences: Annotated[tuple[Hz, ...], AfterValidator(_signed)] = Field(
        (-24, -16, -8, 8, 16, 24), description="second minus first frequency (Hz)"
    )

    @property
    def conditions(self) -> Conditions:
        # Conditions have the sign of the target, f_1 - f_2; `differences` are f_2 - f_1.
        values = tuple(sorted({float(-d) for d in self.differences}))
        return Conditions("f1 - f2 (Hz)", values, choice=True)

    def trial(self, key: Array, dtype: jax.typing.DTypeLike) -> Trial:
        key_noise, key_pair, key_delay = jax.random.split(key, 3)
        # Drawing among all pairs, not d first, keeps both frequencies' ranges and makes small |d| more frequent.
        pairs = [
            (first, -d)
            for d in self.differences
            for first in range(max(10 - d, 10), min(34, 34 - d) + 1)
        ]
        first, less = jnp.asarray(pairs)[jax.random.randint(key_pair, (), 0, len(pairs))]
        # Whole steps, both ends included.
        shortest, longest = map(self.steps, self.delay)
        delay = jax.random.randint(key_delay, (), shortest, longest + 1)
        stimuli, end = self.both(delay, dtype)
        frequencies = jnp.asarray([first, first - less], dtype)
        # 22 Hz is the middle of 10 to 34 Hz, and 24 Hz their range.
        inputs = stimuli @ ((frequencies - 22) / 24)[:, None]
        # The sorted values hold `less` itself: searchsorted returns its place.
        condition = jnp.searchsorted(jnp.asarray(self.conditions.values), less)
        answer = less.astype(dtype) / 24
        return self.answered(self.noisy(key_noise, inputs), end, answer, condition)


class Mante(Choice):
    """Context-dependent decision: on colour in one context, on motion in the other (Mante et al. 2013).

    Inputs: colour and motion, each its coherence times `scale` plus noise; two contexts, one of which is `context_scale`
    from fixation to the response. The condition of a trial is the coherence that the context selects.

    >>> task = Mante()
    >>> task.trial(jax.random.key(0), "float32").inputs.shape == (task.longest, 4)
    True
    """

    name = "mante"
    n_in: ClassVar[int] = 4
    epochs: ClassVar = ("fixation", "context_only", "stimulus", "delay", "response")

    response: Ms = Field(20.0, gt=0, description="time during which the output counts (ms)")
    noise: float = Field(0.1, ge=0, description="standard deviation of the noise on the stimuli")
    context_only: Ms = Field(350.0, ge=0, description="time of the context before the stimuli (ms)")
    stimulus: Ms = Field(800.0, gt=0, description="duration of the stimuli (ms)")
    delay: Ms = Field(100.0, ge=0, description="time between stimuli and response (ms)")
    coherences: Signed = Field(
        (-4, -2, -1, 1, 2, 4), description="coherences of colour and of motion"
    )
    scale: float = Field(0.1, gt=0, description="input at coherence 1")
    context_scale: float = Field(0.1, gt=0, description="input of the active context")

    @property
    def conditions(self) -> Conditions:
        values = tuple(sorted(set(map(float, self.coherences))))
        return Conditions("coherence that matters", values, choice=True)

    @property
    def constant_inputs(self) -> tuple[tuple[float, ...], ...]:
        return (0.0, 0.0, self.context_scale, 0.0), (0.0, 0.0, 0.0, self.context_scale)

    def trial(self, key: Array, dtype: jax.typing.DTypeLike) -> Trial:
        key_noise, key_choice, key_context = jax.random.split(key, 3)
        values = self.conditions.values
        conditions = jax.random.randint(key_choice, (2,), 0, len(values))
        coherence = jnp.asarray(values, dtype)[conditions]
        context = jax.random.randint(key_context, (), 0, 2)
        start, onset, offset, at = self.ends()
        # Both stimuli are always shown: the network must ignore the one that the context does not name.
        stimuli = self.during(onset, offset, dtype) * coherence * self.scale
        cue = jax.nn.one_hot(context, 2, dtype=dtype) * self.context_scale
        inputs = jnp.concatenate(
            [self.noisy(key_noise, stimuli), self.during(start, at, dtype) * cue], axis=1
        )
        return self.answered(inputs, at, jnp.sign(coherence[context]), conditions[context])


class MatchToSample(TwoStimuli):
    """Delayed match to sample: were the two stimuli, each A or B on its own input, the same (+1) or not (-1)?

    >>> task = MatchToSample()
    >>> trial = task.trial(jax.random.key(0), "float32")
    >>> trial.inputs.shape == (task.longest, 2), task.conditions.values
    (True, ('A-A', 'A-B', 'B-A', 'B-B'))
    """

    name = "dms"
    n_in: ClassVar[int] = 2
    conditions: ClassVar[Conditions] = Conditions("stimuli", ("A-A", "A-B", "B-A", "B-B"))

    response: Ms = Field(1000.0, gt=0, description="time during which the output counts (ms)")
    stimulus: Ms = Field(500.0, gt=0, description="duration of each stimulus (ms)")
    delay: Span = Field(
        (500.0, 3000.0), description="shortest and longest time between the stimuli (ms)"
    )

    def trial(self, key: Array, dtype: jax.typing.DTypeLike) -> Trial:
        key_noise, key_which, key_delay = jax.random.split(key, 3)
        # 0 ... 3 stand for A-A, A-B, B-A, B-B.
        condition = jax.random.randint(key_which, (), 0, 4)
        samples = jnp.asarray([condition // 2, condition % 2])
        # Rounded down to whole steps: unlike Romo's, the longest delay does not occur.
        span = jax.random.uniform(key_delay, (), minval=self.delay[0], maxval=self.delay[1])
        # Rounding must not take a step off the shortest delay: in float32, 50.1 / 16.7 is below 3.
        delay = jnp.maximum(jnp.floor(span / self.dt).astype(int), self.steps(self.delay[0]))
        stimuli, end = self.both(delay, dtype)
        inputs = stimuli @ jax.nn.one_hot(samples, 2, dtype=dtype)
        answer = jnp.where(samples[0] == samples[1], 1, -1)
        return self.answered(self.noisy(key_noise, inputs), end, answer, condition)
