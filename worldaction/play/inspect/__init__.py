"""What `worldaction data inspect` and `check` compute."""
