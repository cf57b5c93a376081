"""Weights and data from anywhere, as files of this machine."""
