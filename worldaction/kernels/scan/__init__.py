"""Filtering a batch of windows for training, forward and backward."""
