"""The parameters of one item: a row of the matrix of distances between networks."""

from typing import Literal

from pydantic import Field

from ctd import tasks
from ctd.cells import CellName
from ctd.kernel import Data, File, Params, Static, Traced

Method = Literal[
    "procrustes", "cka", "rbf_cka", "svcca", "cca",
    "dsa", "dsa:eigenvalues", "dsa:joint", "dsa:input", "topology", "connections",
]  # fmt: skip

OF_POINTS = ("topology", "connections")
"""Methods that compare fixed points."""

OF_DYNAMICS = ("dsa", "dsa:eigenvalues", "dsa:joint", "dsa:input")
"""Methods that compare linear dynamics."""

OF_INPUTS = ("dsa:joint", "dsa:input")
"""Methods that compare the effects of inputs, too."""


class Comparison(Params):
    """The parameters of the comparison of one network with those after it.

    >>> Comparison(method="dsa", states=("a.h5", "b.h5"), rank=5).dtype
    'float64'
    """

    dtype: Static[Literal["float32", "float64"]] = "float64"
    method: Static[Method] = Field(
        "procrustes",
        description="procrustes, cka, rbf_cka, svcca and cca compare states; dsa and dsa:eigenvalues compare dynamics, dsa:input what "
        "inputs do to them, dsa:joint both; topology and connections compare fixed points",
    )
    weights: File[tuple[str, ...]] = ()
    """file of weights of each network; all run the same trials of `task`"""
    cell: Data[CellName | None] = None
    """cell of all networks; by default each file tells its own"""
    states: File[tuple[str, ...]] = ()
    """instead of weights: file of states of each network, over the same trials"""
    points: File[tuple[str, ...]] = ()
    """methods topology and connections: table of fixed points of each network, STORE/gathered/GROUP"""
    connections: File[tuple[str, ...]] = ()
    """method connections: table of the connections between these points, of each network, STORE/gathered/GROUP"""
    dataset: Data[str] = "states"
    """name of the dataset of states, (trial, time, state)"""
    driven: Data[bool] = Field(
        False,
        description="dsa, dsa:eigenvalues: whether what inputs do is fitted apart from the dynamics; dsa:joint and dsa:input always do this. Inputs are those of "
        "the task, or the dataset `inputs`, (trial, time, input), beside the states",
    )
    task: Data[tasks.AnyTask] = tasks.Decision()
    """task whose trials all networks run"""
    n_trials: Data[int] = Field(64, gt=0)
    """trials that are run"""
    trial_seed: Data[int] = Field(0, ge=0, lt=2**32)
    """seed of the trials"""
    n_samples: Data[int] = Field(2000, gt=2)
    """most states compared, evenly spread over all trials and steps; dsa takes all"""
    variance: Data[float] = Field(0.99, gt=0, le=1)
    """svcca: share of the variance that the kept components hold"""
    bandwidth: Data[float] = Field(0.8, gt=0)
    """rbf_cka: sd of the kernel, in median distances between states"""
    n_delays: Data[int] = Field(5, gt=0)
    """dsa: states per row of the delay embedding; where inputs are fitted, steps of past and of future"""
    delay_interval: Data[int] = Field(1, gt=0)
    """dsa: steps between two states of such a row; 1 where inputs are fitted"""
    rank: Data[int] = Field(10, gt=0)
    """dsa: dimension of the linear dynamics"""
    starts: Static[int] = Field(4, gt=0)
    """dsa: rotations from which the alignment is optimised, beside one that fits rotating dynamics; up to 8 times as many while fewer than three
    drawn ones end at the highest similarity"""
    max_iterations: Static[int] = Field(500, gt=0)
    """dsa: most steps from each start"""
    max_q: Data[float | None] = Field(None, gt=0)
    """topology, connections: points with a larger q = |F(h) - h|^2 / 2 are left out"""
    rounds: Data[int] = Field(2, ge=0, le=20)
    """connections: rounds of relabelling; a label then reflects the graph up to so many connections away"""
    matrix_row: Traced[int] = Field(0, ge=0, lt=2**24)
    """number of the network; rows beyond the last network are empty"""
