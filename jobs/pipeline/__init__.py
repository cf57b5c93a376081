"""Pipelines: jobs in stages that use the results of earlier stages."""
