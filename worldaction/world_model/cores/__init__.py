"""Recurrent cores, one file each; `base.py` says what a core is."""
