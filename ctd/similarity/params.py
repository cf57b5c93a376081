"""What one item is: a row of the matrix of distances between networks."""

from typing import Literal

from pydantic import Field

from ctd import tasks
from ctd.cells import CellName
from ctd.kernel import Data, File, Params, Static, Traced

Method = Literal[
    "procrustes", "cka", "rbf_cka", "svcca", "cca", "dsa", "topology", "connections"
]  # fmt: skip

OF_POINTS = ("topology", "connections")
"""Methods that compare fixed points."""


class Comparison(Params):
    """The comparison of one network with those after it."""

    dtype: Static[Literal["float32", "float64"]] = "float64"
    method: Static[Method] = Field(
        "procrustes",
        description="procrustes, cka, rbf_cka, svcca and cca compare states; dsa compares dynamics; topology and connections "
        "compare fixed points",
    )
    weights: File[tuple[str, ...]] = Field(
        (), description="files of the networks' weights; all run the same trials of `task`"
    )
    cell: Data[CellName | None] = Field(
        None,
        description="cell of all networks; by default the one that each file of weights belongs to",
    )
    states: File[tuple[str, ...]] = Field(
        (), description="in place of weights: files of states over the same trials"
    )
    points: File[tuple[str, ...]] = Field(
        (),
        description="methods topology and connections: table of points of each network, STORE/gathered/GROUP",
    )
    connections: File[tuple[str, ...]] = Field(
        (),
        description="method connections: which of these points leads to which, of each network: STORE/gathered/GROUP",
    )
    dataset: Data[str] = Field(
        "states", description="name of the states in their files, (trial, time, state)"
    )
    task: Data[tasks.AnyTask] = Field(
        tasks.Decision(), description="task whose trials all networks run"
    )
    n_trials: Data[int] = Field(64, gt=0, description="trials that are run")
    trial_seed: Data[int] = Field(0, ge=0, lt=2**32, description="chooses the trials")
    n_samples: Data[int] = Field(
        2000,
        gt=2,
        description="most steps of trials whose states are compared, evenly spread; dsa takes all",
    )
    variance: Data[float] = Field(
        0.99, gt=0, le=1, description="svcca: share of the variance in the components that are kept"
    )
    bandwidth: Data[float] = Field(
        0.8, gt=0, description="rbf_cka: sd of the kernel, in median distances between states"
    )
    n_delays: Data[int] = Field(5, gt=0, description="dsa: states in a row of the delay embedding")
    delay_interval: Data[int] = Field(1, gt=0, description="dsa: steps between two of them")
    rank: Data[int] = Field(10, gt=0, description="dsa: size of the linear dynamics")
    starts: Static[int] = Field(
        4, gt=0, description="dsa: rotations from which the best one is sought"
    )
    max_iterations: Static[int] = Field(500, gt=0, description="dsa: most steps from each of them")
    max_q: Data[float | None] = Field(
        None,
        gt=0,
        description="topology, connections: points of larger q = |F(h) - h|^2 / 2 do not count",
    )
    rounds: Data[int] = Field(
        2,
        ge=0,
        le=20,
        description="connections: how far each point sees: 1, its connections; 2, theirs; ...",
    )
    matrix_row: Traced[int] = Field(
        0, ge=0, lt=2**24, description="number of the network; there may be more rows than networks"
    )
