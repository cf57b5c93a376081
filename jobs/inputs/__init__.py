"""Weights and data from anywhere, as files on this machine; and the memory that an item takes."""
