"""Bytes by key, on a folder or an object store, and who may write them."""
