"""Kernel: fixed and slow points of a recurrent network, h with F(h, x) = h or nearly so.

The speed of a state is q(h) = |F(h, x) - h|^2 / 2 at a constant input x (Sussillo & Barak 2013,
"Opening the black box"). A *fixed point* has q = 0 to a tolerance; a *slow point* is a local minimum of
q with q > 0. An item is one candidate: a search that minimises q from one start. The tutorials' loss is
the mean over units of (F - h)^2 = 2 q / n: multiply a tolerance on it by n / 2 for one on q.
Where `time` is continuous, F is dh/dt, and a point is where it is 0: q = |F|^2 / 2.

    network        the network under study: the fields that name it, its map or flow, its states
    linear         the network linearised around a state, and what its modes carry
    notebook       `find`, `follow`, `cycles`, `lyapunov`, `linearise`: the same for a user's function
    line           lines and rings: slow points ordered to a chain
    pictures       what the pictures of several kernels share

    search/        the searches, and the table of a network's points
        params       parameters, and options of the table
        starts       the states that searches start from
        kernel       the searches behind the kernel contract
        methods      Levenberg-Marquardt, Adam          approach   the first part of the former: L-BFGS in float32
        exact        points of piecewise linear maps
        unique       which ends are the same point      missed     points at which no search ended
        summary      the table                          plots, portrait, phase: its pictures

Each other folder or file is a kernel:

    continuation/  points that move with a parameter: curve, branch, bifurcation, table (of branches, and pictures)
    limit_cycles/  cycle (the hunt for one of them), table (of them, and pictures)
    connections    departures from points: which leads to which
    exponents      Lyapunov exponents
    trials         the network linearised along trials
    ablation       the network without one unit or mode

`reduce` makes the table: unique points with their shares of the searches, Jacobians, eigenvalues, stability.
"""

from ctd.fixed_points.line import Line, line
from ctd.fixed_points.notebook import (
    Cycles,
    Exponents,
    FixedPoints,
    Followed,
    cycles,
    find,
    follow,
    linearise,
    lyapunov,
)
from ctd.fixed_points.search.kernel import kernel

__all__ = [
    "Cycles", "Exponents", "FixedPoints", "Followed", "Line", "cycles", "find", "follow", "kernel", "line", "linearise", "lyapunov",
]  # fmt: skip
