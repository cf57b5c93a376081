"""The format of a store: everything that docs/store-format.md promises."""
