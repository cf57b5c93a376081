"""Damaged job files, for tests/test_fuzz.py."""

import json

import yaml
from fuzzing import of_bytes, of_tree

JOBS = (
    {
        "kernel": "esn",
        "seed": 3,
        "params": {"n": 5, "m": 1, "target": "narma10", "train": 40, "test": 20},
        "sweep": {"grid": {"g": [0.5, 1.0]}, "random": {"tau": {"uniform": [0.2, 0.9]}}, "samples": 2},
        "run": {"microbatch": 1, "slots": 1, "shard_items": 2},
    },
    {
        "stages": {
            "first": {"kernel": "esn", "params": {"n": 5, "train": 40, "test": 20}, "sweep": [{"seeds": 2}]},
            "second": {
                "kernel": "fixed_points",
                "params": {"weights": {"stage": "first", "where": "error < 1"}, "cell": "leaky"},
                "sweep": {"grid": {"candidate": {"range": 10}}},
            },
        }
    },
    {
        "kernel": "train_rnn",
        "params": {"task": {"name": "flipflop", "n_bits": 2}, "n": 4, "n_batches": 2, "report_every": 1},
        "sweep": {"grid": {"learning_rate": {"geomspace": [1e-3, 1e-2, 2]}}, "seeds": 2},
        "search": {"method": "halving", "metric": "eval_loss", "min_advances": 1, "eta": 2},
        "gather": {"reductions": [{"name": "seeds", "of": "eval_loss"}]},
        "keep_bits": {"eval_loss": 10},
    },
)  # fmt: skip

LINES = (
    "&a [*a]", "{<<: *a}", "*none", "!!python/object/apply:os.system ['touch hacked']", "!!int abc", "!!float []",
    "!!timestamp x", "!!binary '*'", "2001-99-99", "1" * 5000, "[" * 3000, "{a: " * 300, "- " * 3000, "? {a: b}",
    "&x [&y {z: *x}]", "'\\ud800'", "\t", "%TAG ! x", "--- a", "...", "0x" + "f" * 50, "1:" * 500 + "1.5",
)  # fmt: skip


def bomb(rng):
    """Each line ten times the one before: 10^width values in few bytes."""
    width = rng.randrange(3, 40)
    lines = ["a0: &a0 [x, x]"]
    for k in range(1, width):
        one = f"*a{k - 1}"
        form = rng.choice(["[{}]", "{{<<: [{}]}}", "[[{}]]"])
        lines.append(f"a{k}: &a{k} " + form.format(", ".join([one] * 10)))
    return "\n".join([*lines, f"kernel: esn\nparams: *a{width - 1}"])


def job_file(rng, folder):
    """A job file with strange values, lines, or bytes."""
    job = rng.choice(JOBS)
    kind = rng.randrange(6)
    if kind == 0:
        text = bomb(rng)
    elif kind == 1:
        lines = yaml.safe_dump(job, sort_keys=False).splitlines()
        at = rng.randrange(len(lines))
        head = lines[at].partition(":")[0]
        lines[at] = rng.choice([f"{head}: ", ""]) + rng.choice(LINES)
        text = "\n".join(lines)
    else:
        text = json.dumps(job if rng.random() < 0.1 else of_tree(rng, job))
    data = text.encode(errors="surrogatepass")
    (folder / "job.yaml").write_bytes(of_bytes(rng, data) if rng.random() < 0.2 else data)
    return ["plan", "job.yaml"]
