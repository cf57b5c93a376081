"""The job file: what a user writes, validated as a `JobSpec`."""
