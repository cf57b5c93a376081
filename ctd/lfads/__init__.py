"""Kernel: LFADS, latent factor analysis via dynamical systems: neural data as the output of a driven network.

An encoder and a controller infer from a trial the initial state and the inputs of a generator network, whose
output explains the trial's spikes. Rates, factors and inputs are denoised estimates. An item is one model.

>>> from ctd.batch import run_items
>>> counts = np.random.default_rng(0).poisson(1.0, (20, 8, 6))  # (trial, time, unit)
>>> np.savez("spikes.npz", train=counts[:15], eval=counts[15:])
>>> sizes = {"encoder": 4, "controller": 0, "generator": 4, "n_factors": 2, "batch_size": 5}
>>> steps = {"n_batches": 2, "report_every": 2, "warm_up": 0, "kl_ramp": 0, "n_samples": 2}
>>> found = run_items(kernel, Model(data="spikes.npz", **sizes, **steps))
>>> found["rates"].shape, found["factors"].shape  # (item, trial, time, ...), posterior means
((1, 5, 8, 6), (1, 5, 8, 2))

Sussillo, Jozefowicz, Abbott & Pandarinath 2016 (arXiv 1608.06315); Pandarinath et al. 2018 (Nat Methods
15:805); Keshtkaran & Pandarinath 2019 (arXiv 1908.07896), Keshtkaran et al. 2022 (Nat Methods 19:1572).

    params         Model: what one item is             model          encoder, controller, generator
    data           trials from a file                  recurrence     GRUs over time, and their gradients
    numpy_file     trials from .npy and .npz           generator      controller and generator in turn
    nwb            trials cut from NWB files           weights        how weights are drawn
    checks         what is refused of trials           distributions  densities and divergences
    chop           recordings into windows and back    loss           negative ELBO, dropout
    sessions       several files as one dataset        train          one step of Adam
    readins        the layers of one session each      inference      rates, factors ... by many draws
    alignment      what these start from               metrics        of the trials at hand: r2, bits per spike
    trained        weights of a store, cores           scores         of all trials: those of the field
    kernel         all of it behind the kernel contract
    presets        AutoLFADS                           results        what is stored of a model
    plots          what a report shows                 names          names and axes of the results
    trial_plots    of single trials and conditions     summary        the best models
    posterior      a kernel of its own: trained models, any trials
    torch_file     its results in a file with the names of lfads-torch

Floats have the model's `dtype`; counts are held as uint8 or int32. Matrix products run at JAX's default precision:
float32 on a CPU, TF32 on GPUs that have it unless `jax_default_matmul_precision` says otherwise.
"""

from ctd.lfads.kernel import kernel
from ctd.lfads.params import Model

__all__ = ["Model", "kernel"]
