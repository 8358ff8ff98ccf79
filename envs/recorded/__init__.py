"""Recorded data in the place of a simulator."""
