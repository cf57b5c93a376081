"""Bytes by key in a folder or an object store, their checksums, and the lease that says who may write."""
