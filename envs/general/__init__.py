"""Any Gymnasium environment with continuous actions as a place to learn in: see `envs.general.standard`."""
