"""Kernel: fixed and slow points of a recurrent network, h with F(h, x) = h or nearly so.

The speed of a state is q(h) = |F(h, x) - h|^2 / 2 at a constant input x (Sussillo & Barak 2013,
"Opening the black box"). A *fixed point* has q = 0 to a tolerance; a *slow point* is a local minimum of
q with q > 0. An item is one candidate: a search that minimises q from one start. The tutorials' loss is
the mean over units of (F - h)^2 = 2 q / n: multiply a tolerance on it by n / 2 for one on q.
Where `time` is continuous, F is dh/dt, and a point is where it is 0: q = |F|^2 / 2.

    candidates   the network, the states that searches start from
    search       the searches: Levenberg-Marquardt, Adam
    approach     the first part of those by Levenberg-Marquardt: L-BFGS in float32
    kernel       parameters, and the searches behind the kernel contract
    unique       which ends of the searches are the same point
    settled      stable points at which no search ended, by running the network
    between      Newton from halfway between points, for saddles that no search ended at
    linear       the network linearised around a point
    summary      the table of a network's points              portrait   its states, projected and coloured
    phase        nullclines and flow of two state variables
    notebook     `find`, the same for a user's function       plots      its pictures

Points that move with a parameter:

    curve         the curve of points, corrected by Newton    branch     one branch of it, step by step
    bifurcation   those within a step, located, classified    branches   tables and pictures
    continuation  the kernel `fixed_points.continuation`      exponents  the kernel of Lyapunov exponents
    connections   the kernel of departures from points

Cycles: `limit_cycles` is the kernel, `cycle` the hunt for one of them, `cycles_table` their table and pictures.
Trials: `trials` is the kernel of networks linearised along them, `transfer` what a mode carries from the input to the readout.
Lesions: `ablation` is the kernel of networks without one unit or mode.
Lines and rings: `line` orders slow points to a chain.
`follow` does continuation, cycles and exponents of a user's function.

`reduce` makes the table: unique points with basin shares, Jacobians, eigenvalues, stability.
"""

from ctd.fixed_points.candidates import load, map_of, n_in_of
from ctd.fixed_points.follow import Cycles, Followed, cycles, follow, lyapunov
from ctd.fixed_points.kernel import Searches, make_kernel
from ctd.fixed_points.line import Line, line
from ctd.fixed_points.notebook import Found, find, linearise

kernel = make_kernel("fixed_points", Searches(map_of, n_in_of), load)

__all__ = [
    "Cycles", "Followed", "Found", "Line", "cycles", "find", "follow", "kernel", "line", "linearise", "lyapunov",
]  # fmt: skip
