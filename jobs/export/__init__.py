"""Export items of a store: runs of MLflow, TensorBoard or W&B in folders, without network; trials of Optuna.

runs        a run: an item's parameters, curves, metrics and file
trackers    one writer for each tracker, which uses the tracker's own library
studies     runs as trials of a study of Optuna
"""
