"""Play data: the memory-mapped store, sampling of windows from it, and readers that fill it."""
