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
        description="lm: L-BFGS, then Levenberg-Marquardt; adam: gradient descent by Adam, which uses no curvature, "
        "so that slow points end as `limit`, at max_iterations; exact: of a piecewise linear cell, by solving linear regions",
    )
    region: Static[Literal["none", "box", "sphere", "linear"]] = Field(
        "none",
        description="where else searches start, for points that no trial comes near. box: each |h_i| up to reach times the "
        "candidates' largest (at least 1); sphere: around their mean, its radius reach times their spread; linear: where the linear region "
        "number `candidate` of a piecewise linear cell has its fixed point, so that a sweep over all numbers misses none",
    )
    candidates: File[str | None] = Field(
        None,
        description="file of states to start from, HDF5, .npz or .npy; without it, searches start at states of trials of `task`",
    )
    dataset: Data[str] = Field("hiddens", description="name of the states in it, (..., state)")
    n_trials: Data[int] = Field(400, gt=0, description="trials that are run")
    dt: Data[float | None] = Field(
        None, gt=0, description="length of a step (s): frequencies and time constants in seconds"
    )
    candidate: Traced[int] = Field(
        0,
        ge=0,
        lt=2**31,
        description="number of the state to start from, modulo their number: searches beyond it repeat, and count again",
    )
    noise: Traced[float] = Field(0.0, ge=0, description="sd of Gaussian noise on the start")
    mix: Traced[float] = Field(
        0.0,
        ge=0,
        le=1,
        description="probability that a search starts between two states instead of at one",
    )
    anywhere: Traced[float] = Field(
        0.0,
        ge=0,
        le=1,
        description="probability that a search starts in the region instead of at a state",
    )
    reach: Traced[float] = Field(1.5, gt=0, description="size of the region")
    q_tol: Traced[float] = Field(  # |F(h) - h| below 1.4e-10
        1e-20, gt=0, description="a fixed point has q below this; the tutorials' loss is 2 q / n"
    )
    max_iterations: Traced[int] = Field(
        10_000,
        gt=0,
        lt=2**31,
        description="most gradients and Hessian products, or with exact regions, that a search may compute",
    )
    max_step: Traced[float] = Field(
        0.25, gt=0, description="lm: longest step, in units of the states' spread"
    )
    stray: Traced[float] = Field(
        3.0,
        gt=0,
        description="lm, adam: a search has diverged if an |h_i| exceeds this many times the candidates' largest, or this if that is below 1",
    )
    learning_rate: Traced[float] = Field(0.2, gt=0, description="adam: first step size")
    decay: Traced[float] = Field(
        0.9999, gt=0, le=1, description="adam: factor of the step size at each iteration"
    )
    adam_eps: Traced[float] = Field(1e-5, gt=0, description="adam: epsilon")

    @model_validator(mode="after")
    def _region_is_there(self) -> FixedPoint:
        if self.anywhere > 0 and self.region == "none":
            raise ValueError("anywhere: there is no region to start in; give region: box or sphere")
        if self.anywhere == 0 and self.region != "none":
            raise ValueError(
                f"region: no search starts in the {self.region}; give anywhere: 0.2 for a fifth of them"
            )
        return self


class Options(BaseModel, frozen=True, extra="forbid"):
    """Settings of the reduction."""

    unique_tol: float = Field(
        1e-3,
        gt=0,
        description="ends closer than this, in units of h, are one point. A point with residual "
        "|F(h) - h| is off by up to that over the smallest singular value of dF/dh - 1: with the "
        "default q_tol, 1e-10 / 1e-5 at worst",
    )
    outlier_tol: float = Field(
        2.0,
        gt=0,
        description="an outlier is farther than this from every candidate state, in units of the "
        "states' root mean square distance from their mean: nowhere near what the network visits",
    )
    max_points: int = Field(
        500, gt=0, description="most points analysed for each input; those with the largest basins"
    )
    settle: int = Field(
        200,
        ge=0,
        lt=2**31,
        description="steps that the network itself makes from up to 500 of the states, for each input, before Newton's "
        "method: finds stable points that no search ended at; 0: none. Not of flows",
    )
    between: int = Field(
        500,
        ge=0,
        description="most searches by Newton for each input from halfway between two of its fixed points: finds saddles "
        "that no search ended at. Fewer for networks of more than 250 units, whose steps cost n^3; 0: none",
    )
