"""Measurements of a trained world model on play that it was not trained on."""
