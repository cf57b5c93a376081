"""The store format: reading and writing everything that docs/store-format.md describes."""
