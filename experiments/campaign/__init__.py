"""Attacks on the promises of docs/reliability.md: a file each, with `NAME` and `attack(seed, folder) -> Outcome`."""
