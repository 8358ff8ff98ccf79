"""Sampling of the latent groups."""
