"""Executing the shards of a store."""
