"""Behavioural tasks: what a network is trained to do, as pure functions of a random key.

A task is a frozen model of its parameters with one method, `trial(key, dtype)`, which draws the
inputs, the targets and the mask of one trial, and mostly another one, `success(trial, output)`, which says whether
the trial was answered correctly. A job file gives its name, alone or with parameters; the
name of a user's own task is the dotted path of its class::

    task: decision
    task: {name: flipflop, n_bits: 2}
    task: {name: yang, rule: [dm1, dm2]}
    task: {name: mylab.tasks.DelayedMatch, n_steps: 40}

`lorenz_spikes` and `spikes_from_rates` make spike counts instead of trials, `rates_from_states` their rates.

    task         Task, Trial, Conditions          white_noise  integrators, decision
    scores       rules of success                 flipflop     FlipFlop, NBitFlipFlop
    epochs       tasks timed in ms                chaotic      ChaoticGenerator
    yang         the twenty of Yang et al. 2019   decisions    RDM, Romo, Mante, match to sample
    yang_rules   what happens in each of them     recorded     trials of a file
    names        tasks by name                    spiking      the spike counts
"""

from ctd.tasks.chaotic import ChaoticGenerator
from ctd.tasks.decisions import Mante, MatchToSample, RandomDots, Romo
from ctd.tasks.flipflop import FlipFlop, NBitFlipFlop
from ctd.tasks.names import NAMES, TASKS, AnyTask, get_task
from ctd.tasks.recorded import Recorded, divide
from ctd.tasks.spiking import (
    lorenz,
    lorenz_spikes,
    overdispersed,
    rates_from_states,
    spikes_from_rates,
)
from ctd.tasks.task import Conditions, Task, Trial, batch
from ctd.tasks.white_noise import ContextualIntegrator, Decision, Integrator, WhiteNoise
from ctd.tasks.yang import Yang
from ctd.tasks.yang_rules import RULES

__all__ = [
    "NAMES",
    "RULES",
    "TASKS",
    "AnyTask",
    "ChaoticGenerator",
    "Conditions",
    "ContextualIntegrator",
    "Decision",
    "FlipFlop",
    "Integrator",
    "Mante",
    "MatchToSample",
    "NBitFlipFlop",
    "RandomDots",
    "Recorded",
    "Romo",
    "Task",
    "Trial",
    "WhiteNoise",
    "Yang",
    "batch",
    "divide",
    "get_task",
    "lorenz",
    "lorenz_spikes",
    "overdispersed",
    "rates_from_states",
    "spikes_from_rates",
]
