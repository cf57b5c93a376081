"""Ray: a local one, an existing cluster, and the pool of workers on either."""
