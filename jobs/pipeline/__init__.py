"""Jobs in stages, which use each other's results."""
