"""Items of a store as runs of an experiment tracker: MLflow, TensorBoard, Weights & Biases; folders, no network.

runs        what a run is: an item's parameters, curves, metrics and file, as the store describes them
trackers    one writer for each tracker, by its own library
"""
