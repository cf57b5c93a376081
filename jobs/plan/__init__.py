"""From a spec to items, groups, shards and packs: pure arithmetic, no file is opened."""
