"""What a GPU gives: five kernels' results against a CPU's, items a second by width, memory against the plan's estimate.

    python benchmarks/gpu.py [--out gpu.json] [--torch PYTHON]    under ten minutes on a machine with a GPU
    python benchmarks/gpu.py --lower                              without one: does everything compile for CUDA?

Each measurement is a process of its own, on one platform. `check` runs the smallest case of a kernel to its end on
both platforms, with products in full float32: the largest difference of each result, as a share of the result's
largest value. Training amplifies rounding, so the cases are short. `speed` advances n items side by side, with
products as the user gets them (TF32 where the GPU has it), and reads the device's peak memory; `planned` is what
the plan takes for n items. An advance of train_rnn and lfads is 20 training steps, which the column `steps` counts, and an
evaluation. LFADS has the counts and sizes of benchmarks/lfads.py and evaluates one trial, and --torch times lfads-torch's step
on the same GPU, one model, without evaluations, in an interpreter that has torch.

`--lower` exports each of these kernels' whole init, advance and result for CUDA by jax.export: what has no GPU lowering fails.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lfads import BINS, counts
from options import parse

from ctd.data import write_hdf5
from ctd.installed import version_of

ROOT = Path(__file__).parent.parent
WEIGHTS = str(ROOT / "examples/decision_gru.h5")
SPIKES = str(ROOT / "examples/lfads_spikes.h5")

CHECKED: dict[str, dict[str, Any]] = {
    "spikes": {"weights": WEIGHTS, "n_train": 16, "n_eval": 4},
    "fixed_points": {"weights": WEIGHTS, "n_trials": 16, "noise": 0.1, "dtype": "float64"},
    "train_rnn": {"n": 32, "batch_size": 16, "n_batches": 20, "report_every": 10, "n_eval": 64},
    "esn": {"n": 100},
    "lfads": {
        "data": SPIKES,
        "encoder": 16,
        "controller": 16,
        "generator": 16,
        "n_factors": 8,
        "batch_size": 8,
        "n_batches": 20,
        "report_every": 10,
        "warm_up": 5,
        "kl_ramp": 10,
        "n_samples": 4,
        "n_metric": 4,
        "n_saved": 2,
    },
}
"""Kernel -> an item that ends within seconds."""

TOLERANCE = 2e-3
"""Largest difference allowed, as a share of a result's largest value: float32 rounding (6e-8) over the steps of a
recurrent network and of its training, which multiply it."""

TIMED: dict[str, tuple[dict[str, Any], Sequence[int]]] = {
    "spikes": ({"weights": WEIGHTS, "n_train": 256, "n_eval": 64}, (1, 16, 64)),
    "fixed_points": ({"weights": WEIGHTS, "n_trials": 64}, (64, 1024, 16384)),
    "train_rnn": ({"report_every": 20}, (1, 16, 64)),
    "esn": ({"n": 1000}, (1, 16, 64)),
    "lfads": ({"data": "counts.h5", "report_every": 20, "batch_size": 128}, (1, 16, 64)),
}
"""Kernel -> parameters whose items last many advances, and how many items side by side. `main` writes counts.h5."""


# --- in a child: one platform ---------------------------------------------------------------------


def started(name: str, given: Mapping[str, Any], n: int, kind: str = "Run") -> Any:
    """A run of n equal items but for their random keys, all in one microbatch; `DeviceSlots`: with nothing computed."""
    import numpy as np

    from ctd import batch
    from ctd.catalogue import load_kernel
    from ctd.kernel import inputs_of, static_of, traced_of

    kernel = load_kernel(name)
    params = kernel.Params.model_validate(given)
    static = static_of(params)
    with batch.precision(static):
        shared = kernel.load(inputs_of(params))
    columns = {
        k: np.repeat(np.asarray(v)[None], n, 0) for k, v in traced_of(params)._asdict().items()
    }
    traced = batch.traced_columns(type(params), columns, static.dtype)
    program = batch.program(kernel, static, batch.Layout(n, n))
    return getattr(batch, kind)(program, shared, 0, np.arange(n), traced)


def check(name: str, out: Path) -> None:
    """Write the results of two items of a kernel."""
    import numpy as np

    run = started(name, CHECKED[name], 2)
    while not run.finished:
        run.advance()
    np.savez(out, **run.results)


def speed(name: str, n: int, seconds: float, out: Path) -> None:
    """Write item-advances a second, seconds of the first advance, peak and planned bytes."""
    import jax

    from ctd.catalogue import load_kernel
    from jobs.inputs.measure import evaluate_group
    from jobs.plan.layout import GroupLayout

    given = TIMED[name][0]
    run = started(name, given, n)
    run.block()
    began = time.perf_counter()
    run.step()
    run.block()
    first = time.perf_counter() - began
    rounds, took = 0, 0.0
    while took < seconds:
        if run._done().any():  # a finished item costs nothing: begin anew, untimed
            run = started(name, given, n)
            run.block()
        began = time.perf_counter()
        run.step()
        run.block()
        took += time.perf_counter() - began
        rounds += 1
    peak = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    kernel = load_kernel(name)
    group = evaluate_group(kernel, kernel.Params.model_validate(given), os.getcwd())
    sizes = group.measured(GroupLayout(slots=n, microbatch=0, shard_items=n), 1)
    planned = sizes.shared + n * (sizes.state + sizes.work + sizes.result)
    found = {"per_s": n * rounds / took, "first_s": first, "peak": peak, "planned": planned}
    out.write_text(json.dumps(found))


def devices(out: Path) -> None:
    """Write the kind of the first device."""
    import jax

    out.write_text(json.dumps(jax.devices()[0].device_kind))


def child(words: Sequence[str]) -> None:
    """Do what `asked` gave: a measurement, its arguments, a file for the answer."""
    what, *rest, out = words
    if what == "devices":
        devices(Path(out))
    elif what == "check":
        check(rest[0], Path(out))
    else:
        speed(rest[0], int(rest[1]), float(rest[2]), Path(out))


# --- the parent -----------------------------------------------------------------------------------


def asked(where: str, out: Path, *words: str) -> str | None:
    """Measure in a process on the platform `where`, in the folder of `out`; return None, or the last line of what went wrong."""
    env = os.environ | {"JAX_PLATFORMS": where, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    if words[0] == "check":
        env["JAX_DEFAULT_MATMUL_PRECISION"] = "float32"
    line = [sys.executable, str(Path(__file__).resolve()), "--child", *words, str(out)]
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    env["PYTHONPATH"] = path
    done = subprocess.run(line, env=env, cwd=out.parent, capture_output=True, text=True)
    return None if done.returncode == 0 else (done.stderr.strip() or "?").splitlines()[-1]


def lower(name: str) -> dict[str, int]:
    """Bytes of a kernel's init, advance and result, exported for CUDA."""
    import jax
    from jax import export

    from ctd.batch import precision

    placed = started(name, CHECKED[name], 2, "DeviceSlots")
    program, slots = placed.program, placed.abstract_slots()
    shape = lambda v: jax.ShapeDtypeStruct((placed.total, *v.shape), v.dtype)
    blank = {k: shape(v) for k, v in placed._values.items()}
    parts = {
        "init": (program.init, None, slots),
        "step": (program.step, None, slots),
        "result": (program.results(tuple(blank)), slots, blank),
    }
    with precision(program.static):
        common = (placed._shared, placed._root, placed._bounds(0, 1), placed._none_fresh)
        exported = {
            part: export.export(compiled, platforms=["cuda"])(*common, *more)
            for part, (compiled, *more) in parts.items()
        }
    return {part: len(found.mlir_module()) for part, found in exported.items()}


def lowered(names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Print and yield what each kernel's programs take, lowered for CUDA in this process."""
    print("| kernel | init | advance | result | (kB of StableHLO for CUDA)\n|---|---|---|---|---|")
    for name in names:
        try:
            found = lower(name)
        except Exception as error:
            print(f"| {name} | {type(error).__name__}: {error} |", flush=True)
            yield {"kernel": name, "fault": str(error)}
            continue
        sizes = " | ".join(f"{size / 1e3:.0f}" for size in found.values())
        print(f"| {name} | {sizes} | |", flush=True)
        yield {"kernel": name, "fault": None, **found}


def checked(names: Sequence[str], where: str, folder: Path) -> Iterator[dict[str, Any]]:
    """Print and yield the largest difference of each kernel's results between both platforms."""
    import numpy as np

    print("| kernel | largest difference | of | same |\n|---|---|---|---|")
    for name in names:
        places = {p: folder / f"{p}.{k}.npz" for k, p in enumerate(dict.fromkeys(["cpu", where]))}
        fault = next(
            filter(None, (asked(p, out, "check", name) for p, out in places.items())), None
        )
        if fault:
            print(f"| {name} | {fault} |", flush=True)
            yield {"kernel": name, "fault": fault}
            continue
        cpu, other = (np.load(places[p]) for p in ("cpu", where))
        differences = {key: difference(cpu[key], other[key]) for key in cpu.files}
        worst = max(differences, key=lambda key: differences[key])
        same = differences[worst] <= TOLERANCE
        print(
            f"| {name} | {differences[worst]:.1e} | {worst} | {'yes' if same else 'NO'} |",
            flush=True,
        )
        yield {"kernel": name, "fault": None, "differences": differences, "same": same}


def difference(a: Any, b: Any) -> float:
    """Largest |a - b| over largest |a|; infinite where one is NaN and the other is not."""
    import numpy as np

    a, b = (np.asarray(x, complex if np.iscomplexobj(x) else float) for x in (a, b))
    if (np.isnan(a) != np.isnan(b)).any():
        return float("inf")
    gap = np.abs(np.nan_to_num(a) - np.nan_to_num(b))
    return float(gap.max(initial=0) / max(np.abs(np.nan_to_num(a)).max(initial=0), 1e-30))


def timed(names: Sequence[str], where: str, options: Any, folder: Path) -> Iterator[dict[str, Any]]:
    """Print and yield speeds and memory of each kernel by width, on both platforms."""
    print(
        f"| kernel | n | {where}: item-advances / s | steps / s | cpu: item-advances / s | ratio | compile s | peak MB | planned MB |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for name in names:
        for n in TIMED[name][1][: options.widths]:
            row: dict[str, Any] = {"kernel": name, "n": n}
            for p in dict.fromkeys([where, "cpu"]):
                fault = asked(p, folder / "s.json", "speed", name, str(n), str(options.seconds))
                row[p] = {"fault": fault} if fault else json.loads((folder / "s.json").read_text())
            yield row
            if fault := row[where].get("fault") or row["cpu"].get("fault"):
                print(f"| {name} | {n} | {fault} |", flush=True)
                continue
            ours, cpu = row[where], row["cpu"]
            peak = f"{ours['peak'] / 1e6:.0f}" if ours["peak"] else ""
            block = TIMED[name][0].get("report_every")
            steps = f"{ours['per_s'] * block:.3g}" if block else ""
            print(
                f"| {name} | {n} | {ours['per_s']:.3g} | {steps} | {cpu['per_s']:.3g} | {ours['per_s'] / cpu['per_s']:.2f} "
                f"| {ours['first_s']:.1f} | {peak} | {ours['planned'] / 1e6:.0f} |",
                flush=True,
            )


def torch_speed(python: str) -> dict[str, Any]:
    """Steps a second of lfads-torch's step on the GPU, one model."""
    line = [python, str(Path(__file__).parent / "lfads.py"), "--only-torch", "--steps=20"]
    done = subprocess.run([*line, "--device=cuda"], capture_output=True, text=True)
    if done.returncode:
        return {"fault": (done.stderr.strip() or "?").splitlines()[-1]}
    found = json.loads(done.stdout.splitlines()[-1])
    print(f"\nlfads-torch's step, torch {found['version']}: {20 / found['wall']:.1f} steps / s")
    return found | {"steps_per_s": 20 / found["wall"]}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lower", action="store_true", help="only lower for CUDA; needs no GPU")
    parser.add_argument("--kernels", nargs="+", default=list(CHECKED), choices=list(CHECKED))
    parser.add_argument("--platform", default="cuda", help="cuda, rocm; cpu: to see that it runs")
    parser.add_argument("--widths", type=int, default=3, help="how many of the widths")
    parser.add_argument("--seconds", type=float, default=2, help="how long each width is timed")
    parser.add_argument("--torch", help="an interpreter that has torch")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"), help="all figures, as JSON")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    options = parse(parser, lower=True, kernels=["esn"])
    if options.child:
        child(options.child)
        return
    packages = {name: version_of(name) for name in ("jax", "jaxlib", "numpy", "ctd")}
    report: dict[str, Any] = {"versions": packages, "python": platform.python_version()}
    with tempfile.TemporaryDirectory(prefix="ctd-gpu-") as place:
        folder = Path(place)
        data = counts(BINS)
        write_hdf5(folder / "counts.h5", {"train": data, "eval": data[:1]})
        if options.lower:
            report["lowered"] = list(lowered(options.kernels))
            faults = [row for row in report["lowered"] if row["fault"]]
        elif fault := asked(options.platform, folder / "d.json", "devices"):
            raise SystemExit(
                f"JAX sees no {options.platform} device here ({fault}); --lower needs none. A GPU's JAX: pip install "
                "'jax[cuda13]'"
            )
        else:
            report["device"] = json.loads((folder / "d.json").read_text())
            print(report["device"], *(f"{k} {v}" for k, v in packages.items()), sep=", ")
            report["checked"] = list(checked(options.kernels, options.platform, folder))
            report["timed"] = list(timed(options.kernels, options.platform, options, folder))
            if options.torch:
                report["torch"] = torch_speed(options.torch)
            faults = [row for row in report["checked"] if row["fault"] or not row["same"]]
    if not options.smoke:
        options.out.write_text(json.dumps(report, indent=1))
        print(f"\nall figures: {options.out}")
    if faults:
        raise SystemExit(f"{', '.join(row['kernel'] for row in faults)}: see above")


if __name__ == "__main__":
    main()
