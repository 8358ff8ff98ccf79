"""What an attack is: something that the library reads, and what reading it comes to."""

from __future__ import annotations

import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from experiments.campaign.damage import damages

Harm = Callable[[Path, np.random.Generator], tuple[str, Callable[[Path], object]]]
Outcome = Literal[
    "clear error", "correct", "accepted though changed", "traceback", "hang", "memory", "code ran", "crash"
]
FAILURES: Final[tuple[Outcome, ...]] = ("traceback", "hang", "memory", "code ran", "crash")
"""Never, whatever is read. Of what has checksums, nothing may be accepted though changed, either."""


@dataclass(frozen=True)
class Input:
    """One input."""

    words: str
    """What was done, so that it can be done again."""
    changed: AbstractContextManager[Any]
    """Inside, the input is as it was made; afterwards everything is as before."""
    answer: Callable[[], Any]
    """What the library makes of it, as JSON values."""


class Attack(ABC):
    """A kind of input. Subclasses say how to build it, and what the library makes of it.

    Args:
        folder: what is attacked is built there, and nowhere else.
    """

    name = ""
    has_checksums = False
    """Whether a change that is accepted is a failure."""
    needs: tuple[str, ...] = ()
    """Packages without which it is left out."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @abstractmethod
    def build(self) -> None:
        """Make what is attacked; called once, in a process of its own."""

    @abstractmethod
    def answer(self) -> Any:
        """What the library makes of it, as JSON values: two inputs that mean the same have the same one."""

    def files(self) -> list[Path]:
        """The files that are damaged."""
        return sorted(path for path in self.folder.rglob("*") if path.is_file() and not path.is_symlink())

    def input(self, rng: np.random.Generator) -> Input:
        """One damaged input."""
        return self.input_by(damages, rng, self.files())

    def input_by(self, harm: Harm, rng: np.random.Generator, files: Sequence[Path]) -> Input:
        """One input of which one of these files is damaged in a way that `harm` chooses."""
        path = files[int(rng.integers(len(files)))]
        words, damage = harm(path, rng)
        return Input(f"{path.relative_to(self.folder)}: {words}", _harmed(path, damage), self.answer)


@contextmanager
def _harmed(path: Path, damage: Callable[[Path], object]) -> Iterator[None]:
    whole, mode = path.read_bytes(), path.stat().st_mode
    # by another name first: other names of the file must not change with it
    path.unlink()
    path.write_bytes(whole)
    try:
        damage(path)
        yield
    finally:
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        path.unlink(missing_ok=True)
        path.write_bytes(whole)
        path.chmod(mode)


def known_attacks() -> dict[str, type[Attack]]:
    """Every attack by its name: the classes with a name in the files of `attacks/`."""
    from experiments.campaign import attacks

    found: dict[str, type[Attack]] = {}
    for info in pkgutil.iter_modules(attacks.__path__):
        module = import_module(f"{attacks.__name__}.{info.name}")
        classes = [one for one in vars(module).values() if isinstance(one, type) and issubclass(one, Attack)]
        found |= {one.name: one for one in classes if one.name and one.__module__ == module.__name__}
    return found
