"""Kernel: LFADS, latent factor analysis via dynamical systems; neural data as a driven network's output.

An encoder and a controller infer from a trial the initial state and the inputs of a generator network, whose
output explains the trial's spikes. Rates, factors and inputs are denoised estimates. An item is one model.

Sussillo, Jozefowicz, Abbott & Pandarinath 2016 (arXiv 1608.06315); Pandarinath et al. 2018 (Nat Methods
15:805); Keshtkaran & Pandarinath 2019 (arXiv 1908.07896), Keshtkaran et al. 2022 (Nat Methods 19:1572).

    params         Model: what one item is             distributions  densities and divergences
    data           trials from a file, checked         model          encoder, controller, generator
    nwb            trials cut from NWB files           numpy_file     trials from .npy and .npz
    chop           recordings into windows and back    sessions       several files as one dataset
    adapters       read-ins and readouts of sessions   alignment      what these start from
    ode            the neural ODE as the generator
    trained        weights of a store, cores           over_sessions  results of all sessions as one
    loss           negative ELBO, dropout              recurrence     the scans and their gradients
    train          one step of Adam                    draws          moments over many draws
    metrics        bits per spike, r2                  summary        the best models
    plots          what a report shows                 names          names and axes of the results
    kernel         all of it behind the kernel contract
    posterior      a kernel of its own: trained models, any trials
    torch_file     its results in a file with the names of lfads-torch

All floats have the model's `dtype`; counts are stored as uint8 or int32. Matrix products run at JAX's
default precision: float32 on a CPU, TF32 on GPUs that have it unless `jax_default_matmul_precision` says
otherwise.
"""

from ctd.lfads.kernel import kernel
from ctd.lfads.params import Model

__all__ = ["Model", "kernel"]
