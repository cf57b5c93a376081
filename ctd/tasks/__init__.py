"""Behavioural tasks: what a network is trained to do, as pure functions of a random key.

A task is a frozen model of its parameters with one method, `trial(key, dtype)`, which draws the
inputs, the targets and the mask of one trial. A job file gives its name, alone or with parameters; the
name of a user's own task is the dotted path of its class::

    task: decision
    task: {name: flipflop, n_bits: 2}
    task: {name: mylab.tasks.DelayedMatch, n_steps: 40}

`lorenz_spikes`, `spikes_from_rates` and `spikes_from_states` make spike counts instead of trials.

    task         Task, Trial: what a task is      white_noise  integrators, decision
    flipflop     FlipFlop                         chaotic      ChaoticGenerator
    names        tasks by name                    spiking      the spike counts
"""

from ctd.tasks.chaotic import ChaoticGenerator
from ctd.tasks.flipflop import FlipFlop
from ctd.tasks.names import NAMES, TASKS, AnyTask, get_task
from ctd.tasks.spiking import lorenz, lorenz_spikes, spikes_from_rates, spikes_from_states
from ctd.tasks.task import Task, Trial, batch
from ctd.tasks.white_noise import ContextualIntegrator, Decision, Integrator, WhiteNoise

__all__ = [
    "NAMES",
    "TASKS",
    "AnyTask",
    "ChaoticGenerator",
    "ContextualIntegrator",
    "Decision",
    "FlipFlop",
    "Integrator",
    "Task",
    "Trial",
    "WhiteNoise",
    "batch",
    "get_task",
    "lorenz",
    "lorenz_spikes",
    "spikes_from_rates",
    "spikes_from_states",
]
