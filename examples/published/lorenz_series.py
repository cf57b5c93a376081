"""Kernel: the series of the Lorenz system that Gauthier et al. 2021 fit, by their solver, its tolerance and their start."""

from typing import Any, Literal

import numpy as np
from scipy.integrate import solve_ivp

from ctd.kernel import Data, Params, Static, Var, one_shot

START = (17.67715816276679, 12.931379185960404, 43.91404334248268)


class Series(Params):
    """The parameters of a series."""

    dtype: Static[Literal["float64"]] = "float64"
    n: Static[int] = 24_244
    dt: Data[float] = 0.025


def load(inputs: Any) -> np.ndarray:
    """(time, 3) x, y, z by Runge and Kutta's method of order 3 with a relative tolerance of 1e-3."""
    field = lambda t, u: [10 * (u[1] - u[0]), u[0] * (28 - u[2]) - u[1], u[0] * u[1] - 8 / 3 * u[2]]
    times = np.arange(inputs.n) * inputs.dt
    return solve_ivp(field, (0, inputs.n * inputs.dt), START, t_eval=times, method="RK23").y.T


kernel = one_shot(
    "lorenz_series",
    Series,
    {"targets": Var(("time", "output"), "1", "x, y, z of the Lorenz system")},
    lambda static, shared, traced, key: {"targets": shared},
    load=load,
)
