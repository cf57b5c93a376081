"""Stages that feed each other."""
