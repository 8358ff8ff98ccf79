"""What `worldaction benchmark` measures: libraries side by side, after what is not right has been refused."""

PARTS = ("imagination", "denoising", "dreams", "training", "simulator", "loading", "growth")
"""What is measured, in order."""
