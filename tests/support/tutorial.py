"""A page of the documents whose commands and programs are run, step by step, in a folder of its own."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from tiny_study import ROOT, environment

_WORLDACTION = "from experiments.__main__ import main; main()"


@dataclass
class Tutorial:
    """What a page shows."""

    name: str
    text: str = field(init=False)
    commands: list[str] = field(init=False)
    programs: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.text = (ROOT / "docs" / self.name).read_text()
        bash, self.programs = (re.findall(rf"```{kind}\n(.*?)```", self.text, re.DOTALL) for kind in ("bash", "python"))
        self.commands = [line for block in bash for line in block.splitlines()]

    def made(self, folder: Path) -> Path:
        """A folder in which the first command has been done, and the programs of the page have replaced its files."""
        done = run(self.commands[0], folder)
        assert done.returncode == 0, done.stderr
        plugin = self.commands[0].split()[-1]
        for path, text in zip((folder / f"{plugin}.py", folder / f"test_{plugin}.py"), self.programs, strict=True):
            assert path.exists()
            path.write_text(text)
        return folder

    def answers(self) -> list[str]:
        """What the page says that a broken plug-in is told."""
        shown = [line.strip() for line in re.findall(r"^    (.*)$", self.text, re.MULTILINE)]
        return [line for line in shown if line.startswith("WRONG")]


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """What a shell would do in a folder."""
    program, *arguments = shlex.split(command)
    words = ["-c", _WORLDACTION, *arguments] if program == "worldaction" else arguments
    return subprocess.run(
        [sys.executable, *words], env=environment(), cwd=folder, capture_output=True, text=True, timeout=300
    )
