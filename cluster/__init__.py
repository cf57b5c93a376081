"""Where a job runs: Ray, and the command line on top."""
