"""What the settings of a run only refer to: data at a path, code of the user's. Is it still what the run began with?"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from experiments.study.arms import arms_of
from experiments.study.settings import Study
from worldaction.errors import UserError
from worldaction.io.artefact import read_json
from worldaction.io.fingerprint import code_of, content_of
from worldaction.losses.registry import LOSSES, parse

PLAY, STARTS, NAMED_BY = "--play", "--starts", "--world-model.named-by"
"""Options whose values are paths of what a run learns from."""
OWN = ("worldaction", "envs", "agents", "experiments")


class References:
    """The names in a study, and hashes of what lay behind them when its run began, which are in its env.json."""

    def __init__(self, study: Study, folder: Path) -> None:
        """
        Args:
            study: the run's settings.
            folder: the run's.
        """
        self.study, self.folder = study, folder

    @property
    def all(self) -> list[str]:
        """Options with a path, and modules."""
        return sorted({*self.paths, *self.losses, *self.envs})

    @property
    def paths(self) -> dict[str, str]:
        """Paths by their options."""
        found = {PLAY: self.study.play, STARTS: self.study.starts, NAMED_BY: self.study.world_model.named_by}
        return {option: path for option, path in found.items() if path is not None}

    @cached_property
    def losses(self) -> list[str]:
        """Modules of the study's losses, and of those of its arms."""
        registered = {entry.name: entry.value for entry in entry_points(group=LOSSES.package)}
        studies = [self.study, *(arm.study for arm in arms_of(self.study))]
        targets = [parse(text).target for study in studies for text in study.losses]
        return _modules(registered.get(target, target) for target in targets)

    @cached_property
    def envs(self) -> list[str]:
        """Modules of the environment, the judge and the demonstrator."""
        return _modules((self.study.env, self.study.gym.success, self.study.gym.expert))

    def now(self) -> dict[str, str | None]:
        """Hashes by name; None for what is not here."""
        return {name: self._look(name) for name in self.all}

    def part(self, *names: str) -> dict[str, Any]:
        """For what made an artefact: the hashes from when the run began, and nothing where no such name is used."""
        found = {name: self._then[name] for name in names if name in self._then}
        return {"content": found} if found else {}

    def refuse_changed(self, names: Iterable[str]) -> None:
        """Refuse to go on with something else than the run began with; what is not here cannot be compared.

        Raises:
            UserError: what lies behind one of the names is another thing now.
        """
        for name in (name for name in names if self._then.get(name)):
            if self._look(name) not in (self._then[name], None):
                what = f"{name} {self.paths.get(name, '')}".rstrip()
                raise UserError(
                    f"{what} has changed since the run in {self.folder} began; undo that, or begin another run"
                )

    def _look(self, name: str) -> str | None:
        return content_of(self.paths[name]) if name in self.paths else code_of(name)

    @cached_property
    def _then(self) -> dict[str, str | None]:
        """None in runs that began before any were kept."""
        path = self.folder / "env.json"
        return dict(read_json(path).get("content", {})) if path.exists() else self.now()


def _modules(specifications: Iterable[str]) -> list[str]:
    """Modules of those that are `module:name`, but for our own, which the version stands for."""
    found = {text.rpartition(":")[0] for text in specifications if ":" in text}
    return sorted(module for module in found if module.partition(".")[0] not in OWN)
