"""What a served policy saw and did, kept as a play store: one attempt an episode, with what the robot said of its end.

An episode is in memory until it has ended, and then on disk: a server that is killed loses the one under way. The store
has its name when it is closed; until then it is STORE.partial, and the next server of the same policy goes on with it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from agents.policy import Policy
from worldaction.errors import UserError
from worldaction.interface import as_config
from worldaction.play.layout import Segment
from worldaction.play.writers.store import StoreWriter, begun_as
from worldaction.spec import ACTION

LOGGER = logging.getLogger("worldaction")
SOURCE: Final = "a served policy"
OUTCOMES: Final = {True: "a success", False: "a failure", None: "nobody says how it ended"}


class ServedEpisodes:
    """The store of a server; as a context manager it is closed at the end, unless an error ends it.

    Args:
        path: of the store.
        policy: that is served.
        name: the policy's: what another one has begun is not gone on with.

    Raises:
        UserError: the store exists, another process writes it, or it was begun with another policy.
    """

    def __init__(self, path: Path, policy: Policy, *, name: str) -> None:
        self.path, self._policy, self._name, self._lock = path, policy, name, threading.Lock()
        if (before := begun_as(path)) not in (None, name):
            raise UserError(
                f"{path}.partial has episodes of {before}; serve that policy with --record {path} and stop it, which"
                " closes the store, or give another --record"
            )
        self._writer = self._begun()
        if self._writer.whole:
            LOGGER.info("%s goes on after %d episodes", path, self._writer.whole)

    def _begun(self) -> StoreWriter:
        """A writer that goes on from what is on disk."""
        config, interface = self._policy.model.config, self._policy.interface
        return StoreWriter(
            self.path,
            image_size=config.image_size,
            source=interface.source or SOURCE,
            renderer="cameras",
            seed=None,
            config={"policy": {"name": self._name}} | as_config(interface),
            # a robot has no scene to tell of
            layout=replace(config.layout, cameras=config.cameras, scene=0),
            resume=self._name,
            irreplaceable=True,
        )

    def __enter__(self) -> ServedEpisodes:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is None:
            self.close()
        else:
            # what was kept stays in STORE.partial
            self._writer.abandon()

    def __len__(self) -> int:
        """Episodes that are kept."""
        return self._writer.whole

    def keep(self, seen: Sequence[Mapping[str, np.ndarray]], told: Sequence[np.ndarray], success: bool | None) -> None:
        """Write an episode.

        Args:
            seen: its T frames, as `RobotInterface.observe` gives them.
            told: the T actions [A] that were answered, in the robot's units.
            success: what the robot said; None if it said nothing.

        Raises:
            UserError: the disk is full; nothing of the episode is kept, and it can be tried again.
        """
        scale, actions = self._policy.interface.scale, np.stack(told)
        arrays: dict[str, Any] = {key: np.stack([frame[key] for frame in seen]) for key in seen[0]}
        arrays[ACTION] = actions if scale is None else scale.to_unit(actions)
        with self._lock:
            if self._writer.ended:
                # an episode did not fit: without what there is of it
                self._writer = self._begun()
            segment = Segment(self._policy.task, 0, len(actions), success)
            self._writer.add_episode(arrays, kind="near_miss", segments=[segment])
            self._writer.checkpoint()
        LOGGER.info("episode %d of %s: %d frames, %s", len(self) - 1, self.path, len(actions), OUTCOMES[success])

    def close(self) -> None:
        """Give the store its name; without an episode there is none.

        Raises:
            UserError: the disk is full, or was when an episode was to be kept; the others stay in STORE.partial.
        """
        with self._lock:
            self._writer.close() if len(self) else self._writer.abandon()
