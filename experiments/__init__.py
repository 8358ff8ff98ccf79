"""Studies: from play data to curves and a report, in one command."""
