"""The rows of the table, one for each job file of this folder: what was published, and how ours is measured."""

from figure import Figure, Row
from measures import (
    as_a_cube,
    between_cells,
    circuit_connections,
    co_bps_range,
    column,
    degeneracy,
    few_shot_picks,
    force_error,
    geometry,
    kappa,
    lint_bound,
    lint_effective,
    lint_rates,
    narma_nmse,
    nvar,
    preset_gain,
    region_currents,
    silhouettes,
    sine_explained,
    sine_turn,
    sine_unstable,
    stitching_gain,
    worst_task,
)

TUTORIALS = "google-research/computation-thru-dynamics"
PICTURE, NONE = "a picture", "none"
"""What a paper has in place of a number."""

TUTORIAL_ROWS = (
    Row("integrator", f"notebook Integrator RNN ({TUTORIALS})", (
        Figure(
            "loss", "mean squared error on other trials", column("integrator", "eval_loss"),
            published=2e-5, goal="less", hold=(0, 6e-5),
            why="1.3e-5 in one run; rounding over 10,000 steps and seeds make a factor of two each",
        ),
    )),
    Row("decision", f"notebook Fixed Point Finder ({TUTORIALS})", (
        Figure(
            "loss", "mean squared error of the decision on other trials", column("decision", "eval_loss"),
            published=0.03552, goal="less", hold=(0.02, 0.06),
            why="trials whose sum is near 0 cannot be decided, so that no network comes to 0",
        ),
    ), as_published=("full",)),
    Row("lfads_integrator", f"notebook LFADS ({TUTORIALS})", (
        Figure(
            "rate r2", "squared correlation over time of true and inferred rates", column("fit", "rate_r2"),
            published=0.527, hold=(0.6, 0.9),
            why=".797 in one run; networks differ in how much of their spikes is noise",
        ),
        Figure(
            "input r2", "the same of inputs", column("fit", "input_r2"), published=0.510, hold=(0.3, 0.85),
            why="a model may infer its input a bin early at the same loss: .227 in one of six",
        ),
    )),
    Row("force", f"notebook FORCE Learning ({TUTORIALS}); Sussillo & Abbott 2009", (
        Figure(
            "replay NRMSE", "error of the network on its own, in deviations of the target",
            column("force", "replay_nrmse"), published=PICTURE, goal="less", hold=(0, 0.02), why="random networks differ by a factor of two around .007",
        ),
    )),
)  # fmt: skip

DYNAMICS_ROWS = (
    Row("flipflop", "Sussillo & Barak 2013, figure 4", (
        Figure(
            "8/12/6/1 points", "whether a network has these fixed points of 0 to 3 unstable directions", as_a_cube,
            published="yes", yes_no=True, bound=1.0, hold=(0.51, 1), why="a GRU may have a spurious pair of points: more than half have none",
        ),
    )),
    Row("universality", "Maheswaranathan et al. 2019", (
        Figure(
            "8/12/6/1 points", "as above, networks of three cells", as_a_cube,
            published="yes", yes_no=True, bound=1.0, hold=(0.51, 1), why="as above",
        ),
        Figure(
            "topology", "distance of the graphs of connections between points, networks of different cells", between_cells,
            published=0.0, goal="less", bound=0.0, hold=(0, 1e-9), why="graphs are equal or not",
        ),
        Figure(
            "geometry", "Procrustes distance between cells over that within a cell", geometry,
            published="> 1", hold=(1, 10), why="the sign alone is what the paper says",
        ),
    )),
    Row("sines", "Sussillo & Barak 2013, figure 6", (
        Figure(
            "sine", "share of the variance of sines that a network generates", sine_explained,
            published=PICTURE, bound=1.0, hold=(0.9, 1.0), why="a network that fails has 0 or less",
        ),
        Figure(
            "unstable pair", "share of inputs with a fixed point with one unstable pair of modes and no other", sine_unstable,
            published=1.0, bound=1.0, hold=(0.7, 1.0), why="at the ends of the range a network may have further points",
        ),
        Figure(
            "frequency", "turn of that pair over the frequency of the output", sine_turn,
            published="about 1", goal="equal", hold=(0.8, 1.2), why="a cycle of finite size need not turn as the linear map does",
        ),
    )),
)  # fmt: skip

NETWORK_ROWS = (
    Row("yang", "Yang et al. 2019", (
        Figure(
            "accuracy", "share of right trials, a network for each task", column("yang", "accuracy"),
            published=NONE, hold=(0.9, 1.0), why="training ends at .95; the paper's .8 is of the worst task",
        ),
        Figure(
            "worst accuracy", "the worst of the tasks; of one network for all twenty, its worst rule", worst_task,
            published=0.8, hold=(0.8, 1.0), why="each of the twenty tasks was learned to .95 before",
        ),
    )),
    Row("lint", "LINT: Valente, Pillow & Ostojic 2022", (
        Figure(
            "R2, rdm", "of rates, their noise included", lint_rates("rdm"), bound=lint_bound("rdm"), published=0.984, hold=(0.9, 1.0),
            why="the noise of the fitted rates bounds it: .980 where the fit is exact, at 512 units",
        ),
        Figure(
            "cosine, rdm", "of effective connectivities", lint_effective("rdm"), published=0.988, bound=1.0, hold=(0.9, 1.0),
            why="fits that have not ended come to .9",
        ),
        Figure(
            "R2, mante", "of rates, their noise included", lint_rates("mante"), bound=lint_bound("mante"), published=0.925, hold=(0.8, 1.0), why="as above; .942 at 512 units",
        ),
        Figure(
            "cosine, mante", "of effective connectivities", lint_effective("mante"), published=0.991, bound=1.0, hold=(0.8, 1.0),
            why="after 2,000 steps .936 at 512 units",
        ),
    )),
    Row("latent_circuit", "Langdon & Engel 2025, tutorial", (
        Figure(
            "error of rates", "mean squared error of embedded activity over the rates' variance, noise of both included", column("fit", "noisy_nmse"),
            published=0.0701, goal="less", hold=(0, 0.13),
            why="theirs varies by .006 over its last ten prints; networks differ: on one of theirs the authors' code and ours come to .060",
        ),
        Figure(
            "connections", "correlation of a circuit's weights with the network's projected on its nodes", circuit_connections,
            published=PICTURE, bound=1.0, hold=(0.5, 1.0), why=".907 by the authors' code on a network of theirs, .909 and .911 by ours on the same",
        ),
    )),
    Row("mean_field", "Mastrogiuseppe & Ostojic 2018", (
        Figure(
            "kappa", "of networks of rank one, over that of the mean field", kappa,
            published=1.0, goal="equal", hold=(0.98, 1.02),
            why="m' m / N of 4,000 units varies by 2 %, kappa by as much at s = 1.2 and by less above; a median of 40 by less",
        ),
    )),
)  # fmt: skip


def changes(factor: str, **signs: int) -> tuple[Figure, ...]:
    """The figures of what a factor does to the degeneracy of networks, of which the paper tells signs; 2 is a sign of ours too."""
    return tuple(
        Figure(
            f"{factor}, {of}", "change of the logarithm per level",
            degeneracy(factor, of), published="> 0" if sign > 0 else "< 0", hold=(-2, 2) if abs(sign) < 2 else (0, 2) if sign > 0 else (-2, 0),
            why="four networks a setting decide signs of weights alone: other intervals hold 0",
        )
        for of, sign in signs.items()
    )  # fmt: skip


COMPARISON_ROWS = (
    Row("degeneracy", "Huang et al. 2025", (
        *changes("complexity", dynamics=-1, weights=1),
        *changes("features", dynamics=-1, weights=2),
        *changes("width", dynamics=-1, weights=-2, behaviour=-1),
        *changes("sparsity", dynamics=-1, weights=-2, behaviour=-1),
    )),
    Row("input_dsa", "Huang & Ostrow 2026, figure 2", (
        Figure(
            "silhouette, dynamics", "of squared distances of eigenvalues, by shared dynamics", silhouettes("dsa:eigenvalues", "dynamics", 2),
            published=0.952, bound=1.0, hold=(0.3, 1.0),
            why="six draws of systems by the authors' code come to .41 to .96, median .77; theirs is one draw",
        ),
        Figure(
            "silhouette, inputs", "of distances of input matrices, by how inputs enter", silhouettes("dsa:input", "entry"),
            published=0.747, bound=1.0, hold=(0.5, 1.0),
            why="as above: .58 to .78, median .66",
        ),
    ), as_published=("small",)),
)  # fmt: skip

RESERVOIR_ROWS = (
    Row("narma", "NARMA-10 (Atiya & Parlos 2000)", (
        Figure(
            "NMSE", "squared error over variance in the test, at the setting that is best in validation", narma_nmse,
            published=NONE, goal="less", hold=(0.05, 0.2), why="seeds differ by a tenth around .154",
        ),
    )),
    Row("mackey_glass", "Jaeger 2001", (
        Figure(
            "NRMSE84", "error 84 samples ahead over 20 starts, each network", column("mackey_glass", "replay_last_nrmse"),
            published=2.8e-4, goal="less", hold=(0, 1e-3), why="networks differ by a factor of two; 84 samples of chaos multiply rounding",
        ),
    )),
    Row("nvar", "Gauthier et al. 2021", (
        Figure(
            "training NRMSE", "one sample ahead, over the deviation of all entries", nvar("train_nrmse"),
            published=1.055e-4, goal="equal", spread=0.022e-4, hold=(0.98e-4, 1.13e-4),
            why="theirs has a standard error of .022e-4, and ours may differ by three of them",
        ),
        Figure(
            "test NRMSE", "over one Lyapunov time on its own", nvar("replay_nrmse"), published=2.85e-2, goal="less", spread=2.57e-2,
            differs="theirs is a mean that one outlier of ten makes, ours a median", hold=(0.9e-3, 3.3e-3),
            why="medians of ten segments are .98e-3 to 3.2e-3",
        ),
    ), as_published=("small", "full")),
)  # fmt: skip

RECORDING_ROWS = (
    Row("oscillation", "full-FORCE: DePasquale et al. 2018", (
        Figure(
            "error, full-FORCE", "sum (z - f)^2 / sum f^2 of free runs from the cycle", column("oscillation", "test_error"),
            published=PICTURE, goal="less", hold=(0, 0.02), why="3e-5 to 1e-3 over 20 networks",
        ),
        Figure(
            "error from a random start", "the same after ten trials alone", column("oscillation", "random_start_error"),
            published=PICTURE, goal="less", hold=(0, 1), why="three of 20 networks do not find the cycle",
        ),
        Figure(
            "error, FORCE", "the same of networks whose readout alone is trained", force_error,
            published=PICTURE, goal="less", hold=(0.1, 5), why="1.2 to 1.7 in four networks: they do not learn the task, and a run on its own goes anywhere",
        ),
    )),
    Row("regions", "CURBD: Perich et al. 2020", (
        Figure(
            "pVar", "share of variance that free runs explain", column("fit", "pvar"),
            published=PICTURE, bound=1.0, hold=(0.98, 1.0), why=".992 to .996 over 16 fits after 15 runs",
        ),
        Figure(
            "currents", "correlation of fitted and true currents between regions, mean over pairs", region_currents,
            published=PICTURE, bound=1.0, hold=(-0.2, 0.4), why="true currents reach a twentieth of the units: .004 and .022 in two fits, .031 in one by the authors' code",
        ),
    )),
)  # fmt: skip

WEIGHTED = "R2 weighted by variance, no affine fit"


def benchmark(stage: str, theirs: tuple[float, float, float, float]) -> tuple[Figure, ...]:
    """The figures of a model of CtDBenchmark: rate R2, state R2, co-bps, cycle consistency."""
    rate, state, bits, cycle = theirs
    unheld = "not held: the small setting of this row proves nothing"
    return (
        Figure(f"rate R2, {stage}", WEIGHTED, column(stage, "rate_r2_weighted"), published=rate, bound=1.0, why=unheld),
        Figure(
            f"state R2, {stage}", "the generator's states from true ones, weighted by variance", column(stage, "state_r2_from_true"),
            published=state, bound=1.0, why=unheld,
        ),
        Figure(f"co-bps, {stage}", "bits a spike of held-out units", column(stage, "co_bps"), published=bits, why=unheld),
        Figure(
            f"cycle consistency, {stage}", "states from their log rates, readout refitted as theirs", column(stage, "cycle_consistency_refitted"),
            published=cycle, bound=1.0, why=unheld,
        ),
        Figure(
            f"exact cycle consistency, {stage}", "the same by the model's own readout", column(stage, "cycle_consistency_states"),
            published=NONE, bound=1.0, why=unheld,
        ),
    )  # fmt: skip


def attractor(
    stage: str, rate: tuple[float, float], state: tuple[float, float], hold: tuple[float, float]
) -> tuple[Figure, ...]:
    """The figures of a model of Sedler et al. 2023, which prints (mean, deviation) of five seeds."""
    return (
        Figure(
            f"rate R2, {stage}", "no affine fit, mean over units", column(stage, "rate_r2_units"), published=rate[0], spread=rate[1], bound=1.0,
            hold=hold, why="seeds of the neural ODE had .75 to .88 in the full setting; a fifth of its steps comes to less",
        ),
        Figure(
            f"state R2, {stage}", "the generator's states from true ones, mean over its dimensions",
            column(stage, "state_r2_from_true_mean"), published=state[0], spread=state[1], bound=1.0, hold=(0.2, 1.0), why="as above",
        ),
    )  # fmt: skip


LFADS_ROWS = (
    Row("attractors", "Sedler et al. 2023, Lorenz", (
        *attractor("node", (0.855, 0.010), (0.906, 0.009), (0.4, 1.0)),
        *attractor("gru", (0.817, 0.047), (0.424, 0.058), (0.6, 1.0)),
    )),
    Row("stitched", "Pandarinath et al. 2018", (
        Figure(
            "gain", "rate R2 of the stitched model less the mean of single sessions", stitching_gain,
            published="> 0", hold=(-0.15, 0.5), why="networks and steps move it by .1, docs/accuracy.md",
        ),
        Figure("rate R2", "squared correlation over time, stitched model", column("stitched", "rate_r2"), published=NONE, hold=(0.6, 1.0), why="as above"),
    )),
    Row("preset", "AutoLFADS: Keshtkaran et al. 2022", (
        Figure(
            "gain", "nats a trial by which the best member is better than the best random draw", preset_gain,
            published="> 0", hold=(-5, 200), why="4.8 to 26.7 in three networks with 20 members; fewer members find less",
        ),
    )),
    Row("few_shot", "Dabholkar & Barak 2025", (
        Figure(
            "choice", "whether few-shot co-smoothing is best for the model without extraneous dimensions",
            few_shot_picks, published="yes", yes_no=True, bound=1.0, hold=(0.51, 1), why="more than half of the truths: the metric says nothing else",
        ),
        Figure(
            "co-bps", "range of the co-smoothing of the same models, over the best", co_bps_range, published="about 0", goal="less", hold=(0, 0.05),
            why="8 further coefficients fitted to 5,000 bins a unit cost 8 / 2 nats a unit",
        ),
    )),
    Row("flipflop_lfads", "CtDBenchmark: Versteeg et al. 2025, figure 4", (
        *benchmark("autoencoder", (0.969, 0.962, 0.1358, 0.918)), *benchmark("lfads", (0.930, 0.881, 0.1292, 0.721)),
    )),
)  # fmt: skip

ROWS = (
    *TUTORIAL_ROWS,
    *DYNAMICS_ROWS,
    *NETWORK_ROWS,
    *COMPARISON_ROWS,
    *RESERVOIR_ROWS,
    *RECORDING_ROWS,
    *LFADS_ROWS,
)
