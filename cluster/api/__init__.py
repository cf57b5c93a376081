"""Jobs from Python: build a job, run it here or on a Ray, or submit it to a cluster."""
