"""Gather what is new, and check a store against what it should be."""
