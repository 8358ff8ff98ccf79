"""What a run came to: statistics, tables, figures, films and pages, written from the files in its folder."""

DISTRACTED = "-distracted"
"""Between the name of a loss and the strength of the distraction, in the name of an arm of experiments.losses."""
