# /// script
# requires-python = ">=3.10"
# dependencies = ["neurogym==2.2.*", "h5py"]
# ///
"""Trials of a NeuroGym environment, as a file that `train_rnn` learns from (docs/tasks.md).

    uv run examples/neurogym_trials.py PerceptualDecisionMaking-v0 trials.h5 --trials 2000 --set dt=20 --conditions coh

NeuroGym needs an older NumPy than JAX does: uv makes an environment for this script alone, from its first lines.
Without uv: `pip install "neurogym==2.2.*" h5py` in an environment of its own, and `python` in place of `uv run`.

Choices become one-hot targets, for `task: {name: file, score: category}` and `loss: cross_entropy`; environments whose
answers are numbers keep them, for `score: near`. The mask weighs the steps of a choice such that they count as much as
those of fixation do, which are many more; it is 0 from the end of a trial to that of the longest one.
"""

import argparse
import ast
import sys
import warnings
from pathlib import Path

import h5py
import neurogym
import numpy as np
from gymnasium.spaces import Discrete
from neurogym.envs.registration import all_envs


def sample(env, n: int) -> list[dict]:
    """Draw n trials: their inputs (time, input), targets (time, output) and what NeuroGym says of them."""
    trials = []
    for _ in range(n):
        about = env.new_trial()
        answers = np.asarray(env.gt)
        if answers.ndim == 1 and answers.dtype.kind in "iu":  # the number of a choice at each step
            answers = np.eye(env.action_space.n)[answers - env.action_space.start]
        trials.append(
            {"inputs": np.array(env.ob), "targets": answers.reshape(len(env.ob), -1)} | about
        )
    return trials


def padded(trials: list[dict], name: str, steps: int) -> np.ndarray:
    """Stack one array of all trials; 0 after a trial's end."""
    return np.stack([np.pad(t[name], [(0, steps - len(t[name])), (0, 0)]) for t in trials])


def numbered(trials: list[dict], name: str) -> np.ndarray:
    """Return what NeuroGym calls `name`, one number a trial; texts and tuples by their place in sorted order."""
    if any(name not in trial for trial in trials):
        sys.exit(
            f"--conditions {name}: expected one of {', '.join(set(trials[0]) - {'inputs', 'targets'})}"
        )
    values = [trial[name] for trial in trials]
    if all(np.isscalar(value) and not isinstance(value, str) for value in values):
        return np.asarray(values, float)
    known = sorted({str(value) for value in values})
    print(f"conditions: {', '.join(f'{k} is {value}' for k, value in enumerate(known))}")
    return np.asarray([known.index(str(value)) for value in values], float)


def weights(targets: np.ndarray, lengths: np.ndarray, has_choices: bool) -> np.ndarray:
    """Return the mask (trial, time); choice 0 is fixation, as everywhere in NeuroGym."""
    inside = np.arange(targets.shape[1]) < lengths[:, None]
    chosen = inside & (targets[:, :, 0] == 0) & has_choices
    return inside + chosen * max(0, (inside & ~chosen).sum() / max(1, chosen.sum()) - 1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("environment", help=f"one of {', '.join(all_envs())}")
    parser.add_argument("out", type=Path, help="the HDF5 file")
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--set",
        nargs="*",
        default=[],
        metavar="NAME=VALUE",
        help="for the environment, such as dt=20",
    )
    parser.add_argument(
        "--conditions",
        metavar="NAME",
        help="what tells conditions apart, such as ground_truth or coh",
    )
    args = parser.parse_args()
    if args.environment not in all_envs():
        parser.error(f"unknown environment {args.environment}; there are {', '.join(all_envs())}")
    pairs = (setting.partition("=") for setting in args.set)
    settings = {name: ast.literal_eval(value) for name, _, value in pairs}
    warnings.filterwarnings("ignore")
    env = neurogym.make(args.environment, **settings).unwrapped
    env.seed(args.seed)
    env.reset(seed=args.seed)
    trials = sample(env, args.trials)
    lengths = np.array([len(trial["inputs"]) for trial in trials])
    steps = lengths.max()
    arrays = {name: padded(trials, name, steps) for name in ("inputs", "targets")}
    arrays["mask"] = weights(arrays["targets"], lengths, isinstance(env.action_space, Discrete))
    if args.conditions:
        arrays["conditions"] = numbered(trials, args.conditions)
    with h5py.File(args.out, "w") as file:
        for name, values in arrays.items():
            file[name] = values.astype(np.float32)
        shapes = ", ".join(f"{name} {file[name].shape}" for name in file)
    print(f"{args.out}: {shapes}")


if __name__ == "__main__":
    main()
