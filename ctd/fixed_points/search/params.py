"""The parameters of a search, and the options of the table that is made of all."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field, model_validator

from ctd.fixed_points.network import OfDynamics, OfTrials
from ctd.kernel import Data, File, Static, Traced


class FixedPoint(OfDynamics, OfTrials):
    """One candidate: a search for a point with q(h) = |F(h, x) - h|^2 / 2 = 0; of a flow q = |dh/dt|^2 / 2."""

    method: Static[Literal["lm", "adam", "exact"]] = Field(
        "lm",
        description="lm: L-BFGS, then Levenberg-Marquardt; adam: gradient descent by Adam; it uses no curvature, so its slow points "
        "end as `limit`, at max_iterations; exact: for a piecewise linear cell, solves its linear regions",
    )
    region: Static[Literal["none", "box", "sphere", "linear"]] = Field(
        "none",
        description="where else searches start, to find points that no trial comes near. box: each |h_i| is up to reach times the "
        "candidates' largest |h_i| (at least 1); sphere: around the candidates' mean, with radius reach times their spread; "
        "linear: at the fixed point of linear region number `candidate` of a piecewise linear cell; a sweep over all numbers "
        "misses none",
    )
    candidates: File[str | None] = None
    """file of states to start from, HDF5, .npz or .npy; without it, searches start at states of trials of `task`"""
    dataset: Data[str] = "hiddens"
    """name of the states in it, (..., state)"""
    n_trials: Data[int] = Field(400, gt=0)
    """trials that are run"""
    dt: Data[float | None] = Field(None, gt=0)
    """length of a step (s); with it, the table also has time constants in s and frequencies in Hz"""
    candidate: Traced[int] = Field(0, ge=0, lt=2**31)
    """number of the state to start from, modulo the number of states; searches beyond that repeat, and count again"""
    noise: Traced[float] = Field(0.0, ge=0)
    """sd of Gaussian noise on the start"""
    mix: Traced[float] = Field(0.0, ge=0, le=1)
    """probability that a search starts between two states instead of at one"""
    anywhere: Traced[float] = Field(0.0, ge=0, le=1)
    """probability that a search starts in the region instead of at a state"""
    reach: Traced[float] = Field(1.5, gt=0)
    """size of the region"""
    q_tol: Traced[float] = Field(1e-20, gt=0)
    """a fixed point has q below this; the tutorials' loss is 2 q / n"""
    max_iterations: Traced[int] = Field(10_000, gt=0, lt=2**31)
    """most gradients and Hessian products that a search may compute; with method exact, most regions"""
    max_step: Traced[float] = Field(0.25, gt=0)
    """lm: longest step, in units of the states' spread"""
    stray: Traced[float] = Field(
        3.0,
        gt=0,
        description="lm, adam: a search has diverged once an |h_i| exceeds this many times the candidates' largest |h_i|, which "
        "counts as 1 if it is smaller",
    )
    learning_rate: Traced[float] = Field(0.2, gt=0)
    """adam: first step size"""
    decay: Traced[float] = Field(0.9999, gt=0, le=1)
    """adam: factor of the step size at each iteration"""
    adam_eps: Traced[float] = Field(1e-5, gt=0)
    """adam: epsilon"""

    @model_validator(mode="after")
    def _region_is_there(self) -> FixedPoint:
        if self.anywhere > 0 and self.region == "none":
            raise ValueError("anywhere: there is no region to start in; give region: box or sphere")
        if self.anywhere == 0 and self.region != "none":
            raise ValueError(
                f"region: no search starts in the {self.region}; give anywhere: 0.2 for a fifth of them"
            )
        return self


class Options(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """Settings of the reduction."""

    unique_tol: float = Field(
        1e-3,
        gt=0,
        description="ends closer than this, in units of h, are one point. The error of a point is at most its residual |F(h) - h| divided "
        "by the smallest singular value of dF/dh - 1: with the default q_tol, at worst 1e-10 / 1e-5",
    )
    outlier_tol: float = Field(
        2.0,
        gt=0,
        description="an outlier is farther than this from every candidate state, in units of the "
        "states' root mean square distance from their mean: nowhere near what the network visits",
    )
    max_points: int = Field(500, gt=0)
    """most points analysed for each input: those with the largest basins"""
    settle: int = Field(
        200,
        ge=0,
        lt=2**31,
        description="finds stable points that no search ended at: for each input, the network itself makes this many steps from up to 500 "
        "of the states, then Newton's method follows. 0: off. Not for flows",
    )
    between: int = Field(
        500,
        ge=0,
        description="finds saddles that no search ended at: for each input, at most this many Newton searches start halfway between two of "
        "its fixed points. Networks of more than 250 units get fewer, because a step costs n^3. 0: off",
    )
