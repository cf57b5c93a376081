"""From a spec to items, groups and shards: pure arithmetic."""
