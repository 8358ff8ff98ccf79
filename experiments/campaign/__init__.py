"""The campaign: the promises of docs/reliability.md, attacked. `strikes/` is what happens to a process and its disk."""
