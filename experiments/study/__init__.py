"""Settings, the command line, arms, the folder of a run, the order of the work."""
