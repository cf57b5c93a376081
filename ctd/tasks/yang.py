"""The twenty cognitive tasks of Yang et al. 2019 (Nature Neuroscience 22, 297; gyyang/multitask)."""

from __future__ import annotations

from math import pi
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from ctd.late import Array, jax, jnp
from ctd.tasks.scores import last_step
from ctd.tasks.task import Conditions, Trial
from ctd.tasks.yang_rules import RULES, Draws, Experiment, Plan
from ctd.words import did_you_mean

OFTEN = {"contextdm1": 5.0, "contextdm2": 5.0}
"""Relative frequency of rules that the authors train more often, so that a network cannot ignore the context."""
WIDTH = pi / 8
"""Standard deviation of a bump of activity on a ring (rad)."""
NEAR = 0.2 * pi
"""A direction is right if it lies closer than this to the answer (rad)."""
N_DIRECTIONS = 8
"""Bins of the answers of a single rule, its conditions."""


def _rules(rule_names: object) -> tuple[str, ...]:
    rules = [rule_names] if isinstance(rule_names, str) else rule_names
    if not isinstance(rules, list | tuple) or not rules:
        raise ValueError(f"{rule_names!r:.60} given; expected a rule, a list of rules, or all")
    if list(rules) == ["all"]:
        return tuple(RULES)
    for rule in rules:
        if rule not in RULES:
            hint = did_you_mean(rule, RULES) or f"; the rules are all, {', '.join(RULES)}"
            raise ValueError(f"there is no rule {rule!r}{hint}")
    if len(set(rules)) < len(rules):
        raise ValueError("a rule is given twice; give it once, and a larger entry of `weights`")
    return tuple(rules)


class Yang(Experiment):
    """One of the twenty tasks of Yang et al. 2019, or a mixture of several; a one-hot rule input names the task of a trial.

    Inputs: a fixation cue, two rings of `n_ring` units (one for each modality), 20 rules. A stimulus in direction
    d adds strength * 0.8 exp(-((d - d_i) / (pi / 8))^2 / 2) to unit i of its ring, whose preferred direction is
    d_i; all inputs have noise N(0, noise^2 * 2 tau / dt). Outputs: fixation, and a ring. Targets: fixation is 0.8
    until go and 0.05 from then on; the ring is 0.05 and, after go, 0.05 plus a bump around the answer. With `code:
    one_hot`, for cross-entropy, the target is 1 at fixation or at the nearest unit of the ring, and 0 elsewhere.

    The authors multiply the error with their cost mask before they square it; the mask here is the square of theirs: 1
    from 100 ms to go, 0 for 100 ms after it, then 25; four times as much for the fixation output. With `one_hot`
    it is 1, 0, 5 for every output.

    The last step alone decides whether a trial is right. If the network ought to fixate, the fixation output is above
    0.5; else it is not, and the population vector of the ring lies less than 0.2 pi from the answer; with `one_hot`, from the
    preferred direction of the unit nearest to the answer, which lies up to pi / n_ring from it.

    >>> task = Yang(rule=["dm1", "dm2"])
    >>> task.n_in, task.n_out, task.conditions.values
    (85, 33, ('dm1', 'dm2'))
    """

    name = "yang"

    rule: Annotated[tuple[str, ...], BeforeValidator(_rules)] = Field(
        ("delaygo",), description=f"a rule, a list of rules, or all: {', '.join(RULES)}"
    )
    weights: tuple[Annotated[float, Field(ge=0)], ...] | None = Field(
        None,
        description="relative frequency of each rule; "
        "by default, contextdm1 and contextdm2 come five times as often as the others",
    )
    n_ring: int = Field(32, gt=3, description="units of a ring")
    noise: float = Field(0.01, ge=0, description="sigma_x of the input noise")
    tau: float = Field(100.0, gt=0, description="time constant that scales the noise (ms)")
    code: Literal["bump", "one_hot"] = Field("bump", description="code of the targets")

    @model_validator(mode="after")
    def _weighted(self) -> Yang:
        if self.weights is not None and len(self.weights) != len(self.rule):
            raise ValueError(
                f"weights: {len(self.weights)} given for {len(self.rule)} rules; give one for each rule"
            )
        if self.weights is not None and sum(self.weights) == 0:
            raise ValueError("weights: all are 0; give at least one rule a weight above 0")
        return self

    @model_validator(mode="after")
    def _answers(self) -> Yang:
        # 100 ms after go do not count: if the response ends by then, no step tells whether the network answers.
        for rule in self.rule:
            last, until = RULES[rule].epochs[-1], self.steps(100)
            ms = min(self.durations(last))
            if self.steps(ms) <= until:
                field = "response:" if last == "response" else "time_scale: the response,"
                raise ValueError(
                    f"{field} {ms:g} ms in rule {rule}, has {self.steps(ms)} steps, but the {until} in the first 100 ms "
                    "after go do not count; make it longer, or lower dt"
                )
        return self

    @property
    def epochs(self) -> list[str]:
        used = {epoch for rule in self.rule for epoch in RULES[rule].epochs}
        return [name for name in type(self).model_fields if name in used]

    @property
    def n_in(self) -> int:
        return 1 + 2 * self.n_ring + len(RULES)

    @property
    def n_out(self) -> int:
        return 1 + self.n_ring

    @property
    def longest(self) -> int:
        return max(self.most_steps(RULES[rule].epochs) for rule in self.rule)

    @property
    def conditions(self) -> Conditions:
        if len(self.rule) > 1:
            return Conditions("rule", self.rule)
        degrees = (f"{360 * k / N_DIRECTIONS:g}°" for k in range(N_DIRECTIONS))
        return Conditions("answer", ("fixation", *degrees))

    def trial(self, key: Array, dtype: jax.typing.DTypeLike) -> Trial:
        key_plan, key_rule, key_noise = jax.random.split(key, 3)
        # The plan's key does not depend on the rule: rules share their uniform numbers.
        draws = Draws.from_key(key_plan, dtype)
        rule_index, plan = jnp.zeros((), int), RULES[self.rule[0]](self, draws)
        if len(self.rule) > 1:
            # Make the plan of every rule and select one: a branch would be evaluated on both sides under vmap too.
            weights = self.weights or [OFTEN.get(rule, 1.0) for rule in self.rule]
            logits = jnp.log(jnp.asarray(weights, dtype))
            rule_index = jax.random.categorical(key_rule, logits)
            plans = [RULES[rule](self, draws) for rule in self.rule]
            plan = jax.tree.map(lambda *parts: jnp.stack(parts)[rule_index], *plans)
        number = jnp.asarray([list(RULES).index(rule) for rule in self.rule])[rule_index]
        inputs = self._inputs(plan, number, dtype)
        # The authors scale the noise so that its effect does not depend on dt.
        sd = self.noise * (2 * self.tau / self.dt) ** 0.5
        inputs += sd * jax.random.normal(key_noise, inputs.shape, dtype)
        condition = rule_index
        # A single rule is split by its answers: fixation, then eight directions.
        if len(self.rule) == 1:
            bin_ = jnp.round(plan.answer / (2 * pi) * N_DIRECTIONS).astype(int) % N_DIRECTIONS
            condition = jnp.where(plan.responds, 1 + bin_, 0)
        return Trial(inputs, self._targets(plan, dtype), self._mask(plan, dtype), condition)

    def success(self, trial: Trial, output: Array) -> Array:
        """True if the network fixates, or points in the right direction, at the last step that counts."""
        last = last_step(trial)
        target, answer = trial.targets[last], output[last]
        fixates, must = answer[0] > 0.5, target[0] > 0.5
        # The target's own bump gives the wanted direction, so that both are read in the same way.
        apart = jnp.abs(_population(target[1:]) - _population(answer[1:]))
        near = jnp.minimum(apart, 2 * pi - apart) < NEAR
        return jnp.where(must, fixates, ~fixates & near)

    def _distance(self, direction: Array) -> Array:
        """Angles (n_ring,) between a direction and the preferred directions of a ring (rad)."""
        apart = jnp.abs(direction - _preferred(self.n_ring, direction.dtype))
        return jnp.minimum(apart, 2 * pi - apart)

    def _bump(self, direction: Array) -> Array:
        return 0.8 * jnp.exp(-((self._distance(direction) / WIDTH) ** 2) / 2)

    def _inputs(self, plan: Plan, number: Array, dtype: jax.typing.DTypeLike) -> Array:
        """The inputs (time, n_in) of a trial without noise; number: of its rule among all rules."""
        step = jnp.arange(self.length)[:, None]
        is_on = ((step >= plan.on) & (step < plan.off)).astype(dtype)
        bumps = jnp.stack([self._bump(plan.direction[0]), self._bump(plan.direction[1])])
        rings = jnp.einsum("ts,sm,sr->tmr", is_on, plan.strength.astype(dtype), bumps)
        cue = (step < plan.cue_off).astype(dtype)
        rule = jax.nn.one_hot(number, len(RULES), dtype=dtype) * (step < plan.end)
        return jnp.concatenate([cue, rings.reshape(self.length, -1), rule], axis=1)

    def _targets(self, plan: Plan, dtype: jax.typing.DTypeLike) -> Array:
        # A trial without a response fixates to its end.
        answering = (jnp.arange(self.length)[:, None] >= plan.go) & plan.responds
        if self.code == "one_hot":
            nearest = jnp.argmin(self._distance(plan.answer))
            fixation, low, answer = 1.0, 0.0, jax.nn.one_hot(nearest, self.n_ring, dtype=dtype)
        else:
            fixation, low, answer = 0.8, 0.05, self._bump(plan.answer)
        ring = low + jnp.where(answering, answer, 0)
        parts = [jnp.where(answering, low, fixation), ring]
        return jnp.concatenate(parts, axis=1).astype(dtype)

    def _mask(self, plan: Plan, dtype: jax.typing.DTypeLike) -> Array:
        step = jnp.arange(self.length)
        before = (step >= self.steps(100)) & (step < plan.go)
        after = (step >= plan.go + self.steps(100)) & (step < plan.end)
        if self.code == "one_hot":
            return (before + 5 * after).astype(dtype)
        # Twice the cost mask for fixation, squared.
        of_output = jnp.ones(self.n_out, dtype).at[0].set(4)
        return (before + 25 * after).astype(dtype)[:, None] * of_output


def _preferred(n_ring: int, dtype: jax.typing.DTypeLike) -> Array:
    """(n_ring,) the preferred directions of a ring (rad)."""
    return jnp.arange(n_ring, dtype=dtype) * (2 * pi / n_ring)


def _population(ring: Array) -> Array:
    """The direction of the population vector of a ring (n_ring,), in [0, 2 pi) rad."""
    at = _preferred(len(ring), ring.dtype)
    return jnp.arctan2(ring @ jnp.sin(at), ring @ jnp.cos(at)) % (2 * pi)
