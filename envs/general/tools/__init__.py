"""For whoever writes an environment: a file to begin with, and a check of what a study asks."""
