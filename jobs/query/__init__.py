"""Answering questions about a store."""
