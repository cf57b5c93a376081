"""One group's reduction, and tables over all items."""
