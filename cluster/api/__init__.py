"""Jobs from Python: build one, run it here or on a Ray, send it to a cluster."""
