"""Behavioural tasks that networks are trained on: pure functions of a random key.

A task is a frozen model of its parameters. Its method `trial(key, dtype)` draws the inputs, the targets and the mask of
one trial. Most tasks also have `success(trial, output)`, which says whether the trial was answered correctly. A job file
gives the name of a task, alone or with parameters; the name of your own task is the dotted path of its class::

    task: decision
    task: {name: flipflop, n_bits: 2}
    task: {name: yang, rule: [dm1, dm2]}
    task: {name: mylab.tasks.DelayedMatch, n_steps: 40}

`spikes_from_rates` draws spike counts instead of trials, `rates_from_states` computes rates.

    task         Task, Trial, Conditions, Timed   white_noise  integrators, decision
    scores       rules of success, the loss       flipflop     FlipFlop, NBitFlipFlop
    names        tasks by name                    chaotic      ChaoticGenerator
    yang         the twenty of Yang et al. 2019   decisions    RDM, Romo, Mante, match to sample
    yang_rules   the epochs of each of them       recorded     trials from a file
    spiking      spike counts                     noise        on inputs and states of a network

>>> task = get_task({"name": "flipflop", "n_bits": 2})
>>> task.n_in, task.n_out, task.n_steps
(2, 2, 50)
"""

from ctd.tasks.chaotic import ChaoticGenerator
from ctd.tasks.decisions import Mante, MatchToSample, RandomDots, Romo
from ctd.tasks.flipflop import FlipFlop, NBitFlipFlop
from ctd.tasks.names import NAMES, TASKS, AnyTask, get_task
from ctd.tasks.recorded import Recorded, divide
from ctd.tasks.spiking import overdispersed, rates_from_states, spikes_from_rates
from ctd.tasks.task import Conditions, Task, Trial, batch
from ctd.tasks.white_noise import ContextualIntegrator, Decision, Integrator
from ctd.tasks.yang import Yang
from ctd.tasks.yang_rules import RULES

__all__ = [
    "NAMES", "RULES", "TASKS", "AnyTask", "ChaoticGenerator", "Conditions", "ContextualIntegrator", "Decision", "FlipFlop",
    "Integrator", "Mante", "MatchToSample", "NBitFlipFlop", "RandomDots", "Recorded", "Romo", "Task", "Trial", "Yang",
    "batch", "divide", "get_task", "overdispersed", "rates_from_states", "spikes_from_rates",
]  # fmt: skip
