"""Run the shards of a store."""
