"""Where blocks lie on the table at the start of an episode."""

from __future__ import annotations

from itertools import combinations
from typing import Final

import numpy as np

from envs.playtable.scenes import SCENES, Scene
from envs.tasks import BLOCK_ORDER, BlockTask, Task

Place = tuple[float, float, float]
"""x, y (m) and yaw (rad) of a block."""

BLOCK_Y, BLOCK_GAP = (-0.15, -0.06), 0.085
# a block that is pushed turns, and must not go over the edge
PUSHED_Y: Final = (-0.125, -0.09)
# by how much further the others are spread than where nothing is to be done with a block: right, back (m)
SPREAD: Final = (0.04, 0.01)
# how far from the block of a push its way is kept clear, behind it for the fingers and before it (m), and to all sides
BEHIND, BEFORE, BESIDE = 0.06, 0.15, 0.08
# room that open fingers need around a block (m)
AROUND: Final = 0.11


def draw_blocks(rng: np.random.Generator, scene: Scene = SCENES["D"], task: Task | None = None) -> list[Place]:
    """Position on the table (m) and yaw (rad) of every block, none touching another.

    Args:
        rng: draws them.
        scene: whose blocks.
        task: if it is a block's, that block lies where the task starts and the others out of its way.
    """
    if isinstance(task, BlockTask):
        return _draw_around(rng, scene, task)
    places: list[Place] = []
    (left, right), (front, back) = scene.table, BLOCK_Y
    while len(places) < len(scene.blocks):
        x, y = rng.uniform([left, front], [right, back])
        if all(np.hypot(x - a, y - b) > BLOCK_GAP for a, b, _ in places):
            places.append((float(x), float(y), float(rng.uniform(-np.pi, np.pi))))
    return places


def _draw_around(rng: np.random.Generator, scene: Scene, task: BlockTask) -> list[Place]:
    """All blocks anew, until the others leave room for the one that has something to do."""
    judged = BLOCK_ORDER[scene.name].index(task.block)
    (left, right), (front, back), (further, behind) = scene.table, BLOCK_Y, SPREAD
    low, high = (left, front, -np.pi), (right + further, back + behind, np.pi)
    own = np.array([task.start, PUSHED_Y if task.field == "x" else BLOCK_Y, task.yaw]).T
    while True:
        spots = rng.uniform(low, high, (len(scene.blocks), 3))
        places: list[Place] = [(float(x), float(y), float(yaw)) for x, y, yaw in spots]
        x, y, yaw = rng.uniform(*own)
        moved = places[judged] = float(x), float(y), float(yaw)
        others = [place for number, place in enumerate(places) if number != judged]
        apart = all(np.hypot(a[0] - b[0], a[1] - b[1]) > BLOCK_GAP for a, b in combinations(places, 2))
        if apart and not any(_in_the_way(task, moved, other) for other in others):
            return places


def _in_the_way(task: BlockTask, moved: Place, other: Place) -> bool:
    """Does another block stand where the task's block, or the hand, will be?"""
    ahead, aside = other[0] - moved[0], other[1] - moved[1]
    if task.field != "x":
        return bool(np.hypot(ahead, aside) < AROUND)
    ahead *= task.sign
    # how far before or behind the stretch that is to be free
    beyond = max(0.0, ahead - BEFORE, -BEHIND - ahead)
    return bool(np.hypot(beyond, aside) < BESIDE)
