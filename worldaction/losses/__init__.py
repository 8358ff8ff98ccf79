"""Losses of the world model: a list, in which reconstruction and KL are entries like any other.

A loss is one class in one file. It is found by name in this folder, under the entry-point group ``worldaction.losses``
of any installed package, or as ``module:Class`` from the working directory. On the command line:

    --losses reconstruction kl inverse_dynamics=1.0 my_losses:Mine=0.1

`NAME=SCALE`, and further options after commas: ``reconstruction=1,proprio=50,share=0.25``.
"""

from worldaction.losses.base import Loss, LossOutput, Shapes
from worldaction.losses.registry import LossSpec, available, build, describe, merge, parse

__all__ = ["Loss", "LossOutput", "LossSpec", "Shapes", "available", "build", "describe", "merge", "parse"]
