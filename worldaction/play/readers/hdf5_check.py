"""Walks through an HDF5 file in a process of its own, which may crash or hang where the file is damaged; see hdf5.py.

Run as a script, it ends with status 0 if everything that says where the numbers are can be read.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

LINK = "is a link to another file; copy what it leads to into this one"


def walk(group: Any, external: type) -> None:
    """Look at every attribute, and at where every array keeps its values. Other files are not opened."""
    for value in group.attrs.values():
        repr(value)
    for name in group:
        if isinstance(group.get(name, getlink=True), external):
            sys.exit(f"{group.name.rstrip('/')}/{name} {LINK}")
        # an entry may be a link to nowhere, which is no damage as long as nobody reads it
        item = group.get(name)
        if hasattr(item, "keys"):
            walk(item, external)
        elif hasattr(item, "dtype"):
            repr((item.dtype, item.shape, dict(item.attrs)))
            if item.chunks and item.size:
                item.id.get_num_chunks()


if __name__ == "__main__":
    h5py = importlib.import_module("h5py")
    with h5py.File(sys.argv[1], "r") as file:
        walk(file, h5py.ExternalLink)
