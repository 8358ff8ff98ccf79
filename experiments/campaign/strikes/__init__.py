"""What happens to a process and its disk: a file each, with `NAME` and `attack(seed, folder) -> Outcome`."""
