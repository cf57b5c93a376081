"""Answer questions about a store."""
