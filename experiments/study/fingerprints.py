"""What settings only name, data at a path and code of the user's: is it still what the run began with?"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

from agents.policies.registry import POLICIES
from agents.updates.registry import UPDATES
from envs.benchmark import BENCHMARKS
from experiments.study.arms import arms_of
from experiments.study.settings import Study
from worldaction.errors import UserError
from worldaction.extension import Family
from worldaction.io.fingerprint import code_of, content_of
from worldaction.io.sealed_json import read_json
from worldaction.losses.registry import LOSSES
from worldaction.world_model.cores.registry import CORES

PLAY, STARTS, NAMED_BY, LABELS = "--play", "--starts", "--world-model.named-by", "--recorded.success"
"""Options whose values are paths of what a run learns from."""
OWN = ("worldaction", "envs", "agents", "experiments")


class Fingerprints:
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
        judges = [module for env in self.study.evaluate_in for module in self.judge(env)]
        return sorted({*self.paths, *self.losses, *self.cores, *self.envs, *judges, *self.policies, *self.updates})

    @property
    def paths(self) -> dict[str, str]:
        """Paths by their options."""
        found: dict[str, str | None] = {
            PLAY: self.study.play,
            STARTS: self.study.starts,
            NAMED_BY: self.study.world_model.named_by,
        }
        if self._success.endswith(".json"):
            found[LABELS] = self._success
        found.update(zip(self.more_play, self.study.more_play, strict=True))
        return {option: path for option, path in found.items() if path is not None}

    @property
    def more_play(self) -> list[str]:
        """What the sets after the first one of --play go by."""
        return [f"{PLAY} ({number})" for number in range(2, len(self.study.plays) + 1)]

    @cached_property
    def _success(self) -> str:
        """What says which attempts succeeded: to jurors, what all arms say, if the study has any."""
        return [self.study, *(arm.study for arm in arms_of(self.study))][-1].recorded.success

    @cached_property
    def losses(self) -> list[str]:
        """Modules of the losses."""
        return self._modules(LOSSES, lambda study: study.losses)

    @cached_property
    def cores(self) -> list[str]:
        """Modules of the recurrent core."""
        return self._modules(CORES, lambda study: [study.world_model.core])

    @cached_property
    def policies(self) -> list[str]:
        """Modules of the policy head."""
        return self._modules(POLICIES, lambda study: [study.policy.name])

    @cached_property
    def updates(self) -> list[str]:
        """Modules of the policy update."""
        return self._modules(UPDATES, lambda study: [study.update.name])

    @cached_property
    def envs(self) -> list[str]:
        """Modules of the environment, the judges and the demonstrator."""
        env = BENCHMARKS.available().get(self.study.env, self.study.env)
        return _foreign((env, self.study.gym.success, self.study.gym.expert, self._success))

    @staticmethod
    def judge(env: str) -> list[str]:
        """Modules of another simulator in which policies are evaluated."""
        return _foreign((BENCHMARKS.available().get(env, env),))

    def _modules(self, family: Family, texts: Callable[[Study], Iterable[str]]) -> list[str]:
        """Modules of the plug-ins of the study and of its arms, whether they go by a name or not."""
        known = family.available()
        studies = [self.study, *(arm.study for arm in arms_of(self.study))]
        targets = [family.parse(text).target for study in studies for text in texts(study)]
        return _foreign(known.get(target, target) for target in targets)

    def now(self) -> dict[str, str | None]:
        """Hashes by name; None for what is not here."""
        return {name: self._look(name) for name in self.all}

    def part(self, *names: str) -> dict[str, Any]:
        """For what made an artefact: the hashes from when the run began, and nothing where no such name is used."""
        found = {name: self._then[name] for name in names if name in self._then}
        return {"content": found} if found else {}

    def part_of_judge(self, env: str) -> dict[str, Any]:
        """As `part`, for a simulator that may have been thought of only when the run had ended."""
        found = {name: self._then.get(name) or self._look(name) for name in self.judge(env)}
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


def _foreign(specifications: Iterable[str]) -> list[str]:
    """Modules of those that are `module:name`, but for our own, which the version stands for."""
    found = {text.rpartition(":")[0] for text in specifications if ":" in text}
    return sorted(module for module in found if module.partition(".")[0] not in OWN)
