"""Reducing what is new, and comparing a store with what it should be."""
