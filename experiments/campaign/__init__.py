"""The campaign: whatever the library reads is damaged, again and again, and what becomes of it is counted.

`base.py` what an attack is, `damage.py` what can happen to a file, `trial.py` one try in a process of its own with
limits, `table.py` the figures, and in `attacks/` one file a kind of input, found by itself. `strikes/` is what happens
to a process and its disk.
"""
