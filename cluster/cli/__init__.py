"""The command line `ctd`."""
