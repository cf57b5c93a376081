"""Export a store: runs of MLflow, TensorBoard or W&B in folders, without network; trials of Optuna; an archive.

runs        a run: an item's parameters, curves, metrics and file
trackers    a class for each tracker, which uses the tracker's own library
studies     runs as trials of a study of Optuna
archive     a store as one zip file, described by RO-Crate
posterior   all trials by trained models of lfads: as a job, and as an HDF5 file
"""
