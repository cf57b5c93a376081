"""Export items of a store as runs of MLflow, TensorBoard or Weights & Biases, into folders, without network.

runs        a run: an item's parameters, curves, metrics and file
trackers    one writer for each tracker, which uses the tracker's own library
"""
