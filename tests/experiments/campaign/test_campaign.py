"""The campaign finds what it looks for: faults of every kind that are planted, and none in what is sound."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.campaign.attacks.messages import Messages
from experiments.campaign.attacks.policies import Observations, Policies, PoliciesByHand
from experiments.campaign.attacks.sets import Store, StoreByHand
from experiments.campaign.base import Attack, Input, known_attacks
from experiments.campaign.damage import PROGRAM
from experiments.campaign.table import Figures, campaign, figures_table
from experiments.campaign.trial import Trial, tried
from worldaction.errors import UserError
from worldaction.io.atomic import plain
from worldaction.play.layout import read_description

pytestmark = pytest.mark.timeout(400)


def clear() -> Any:
    raise UserError("x.json is damaged; get it anew")


def wordy() -> Any:
    raise UserError("two\nlines")


def breaks() -> Any:
    return {}["x"]


def obeys() -> Any:
    os.system("true")


def imports() -> Any:
    import worldaction_canary  # type: ignore[import-not-found]

    return worldaction_canary


def waits() -> Any:
    time.sleep(1000)


def computes() -> Any:
    while True:
        pass


def takes() -> Any:
    return float(np.ones(300 * 2**20)[5])


def dies() -> Any:
    os.kill(os.getpid(), 11)


KINDS: dict[str, tuple[Callable[[], Any], str]] = {
    "an error": (clear, "clear error"),
    "an error of two lines": (wordy, "traceback"),
    "a traceback": (breaks, "traceback"),
    "a command": (obeys, "code ran"),
    "an import": (imports, "code ran"),
    "a wait": (waits, "hang"),
    "a loop": (computes, "hang"),
    "memory": (takes, "memory"),
    "a crash": (dies, "crash"),
    "the right answer": (lambda: 1, "correct"),
    "another answer": (lambda: 2, "accepted though changed"),
    "an exit": (lambda: sys.exit(2), "clear error"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_outcome_is_told_from_the_others(tmp_path: Path, kind: str) -> None:
    answer, outcome = KINDS[kind]
    seconds = 1.0 if outcome == "hang" else 30.0
    assert tried(answer, 1, mark=tmp_path / "mark", seconds=seconds).outcome == outcome


def children() -> set[str]:
    """Processes of this one, of which other tests may have left some."""
    return {one for path in Path("/proc/self/task").glob("*/children") for one in path.read_text().split()}


def test_no_outcome_leaves_a_process_or_a_mark(tmp_path: Path) -> None:
    before = children()
    for answer in (waits, obeys, clear):
        tried(answer, 1, mark=tmp_path / "mark", seconds=0.5)
    assert list(tmp_path.iterdir()) == []
    assert children() <= before


def test_what_must_never_be_is_counted_as_a_failure() -> None:
    figures, unsealed = Figures("a", has_checksums=True), Figures("b", has_checksums=False)
    for one in (figures, unsealed):
        for outcome in ("clear error", "correct", "hang", "accepted though changed"):
            one.add("what was done", Trial(outcome, "words"))  # type: ignore[arg-type]
    assert (figures.inputs, figures.failed, unsealed.failed) == (4, 2, 1)
    assert figures.failures[0] == "what was done --> hang: words"
    assert figures_table([figures, unsealed]).body[-1] == ["all", "8", "2", "2", "2", "0", "2", "0", "0", "0", "3"]


def few(*attacks: type[Attack], each: int = 12) -> list[Figures]:
    """A short campaign."""
    return campaign(attacks, minutes=5, seed=3, each=each, seconds=20)


def test_a_short_campaign_finds_nothing() -> None:
    found = few(Store, StoreByHand, Policies, PoliciesByHand, Observations, Messages)
    assert [line for one in found for line in one.failures] == []
    assert all(one.inputs == 12 for one in found)
    counts = sum((one.counts for one in found), Counter[Any]())
    # most damage is seen: else nothing that is read is damaged
    assert counts["clear error"] > 30


def _no_seal(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("atomic", "sealed_json"):
        monkeypatch.setattr(f"worldaction.io.{module}.seal_of", lambda content: "")


def _no_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worldaction.io.atomic.sum_of", lambda tensors, metadata: "")


def _no_verify(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worldaction.play.store.PlayStore.verify", lambda self: None)


def _no_types(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worldaction.io.typed_json._expect", lambda value, kind, path: value)


def _no_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(
        "agents.policy.Policy._unusable", lambda self, seen, embed: torch.zeros(len(embed), dtype=torch.bool)
    )


class Described(Store):
    """Of a store, what describes it."""

    def files(self) -> list[Path]:
        return [self.path / "store.json"]

    def answer(self) -> Any:
        return plain(read_description(self.path)._asdict())


FAULTS: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], type[Attack]]] = {
    "JSON without seals": (_no_seal, Described),
    "tensors without hashes": (_no_sum, Policies),
    "stores that nobody verifies": (_no_verify, Store),
    "JSON of any type": (_no_types, StoreByHand),
    "numbers that are none": (_no_finite, Observations),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_that_is_planted_is_found(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    plant, attack = FAULTS[fault]
    plant(monkeypatch)
    (found,) = few(attack, each=240)
    assert found.failed > 0


def test_equal_seeds_make_equal_inputs(tmp_path: Path) -> None:
    words = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        attack = Policies(folder)
        attack.build()
        rng = np.random.default_rng(1)
        words.append([attack.input(rng).words for _ in range(20)])
    assert words[0] == words[1]
    assert len(set(words[0])) > 5


def test_what_was_damaged_is_whole_again(tmp_path: Path) -> None:
    attack = Store(tmp_path)
    attack.build()
    before = {path: path.read_bytes() for path in attack.files()}
    rng = np.random.default_rng(0)
    differing = 0
    for _ in range(100):
        with attack.input(rng).changed:
            differing += set(attack.files()) != before.keys() or any(
                path.read_bytes() != content for path, content in before.items() if path.is_file()
            )
    assert {path: path.read_bytes() for path in attack.files()} == before
    assert differing > 80


def test_an_attack_is_one_file(tmp_path: Path) -> None:
    assert {"play store", "policy", "world model", "run", "command line"} <= known_attacks().keys()

    class Mine(Attack):
        name = "mine"

        def build(self) -> None:
            """Nothing."""

        def answer(self) -> Any:
            return "fine"

        def input(self, rng: np.random.Generator) -> Input:
            return Input("none", nullcontext(), breaks)

    (found,) = few(Mine, each=3)
    assert found.counts == {"traceback": 3}


def test_the_command_prints_the_figures_and_writes_them(tmp_path: Path) -> None:
    out = tmp_path / "figures.md"
    command = [sys.executable, "-m", "experiments", "campaign", "--minutes", "0.05", "--only", "observation"]
    done = subprocess.run([*command, "--out", str(out)], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "| observation |" in out.read_text()
    assert "code ran" in done.stdout


def test_the_program_in_an_input_is_one_that_unpickling_runs(tmp_path: Path) -> None:
    import pickle

    def unpickles() -> Any:
        return pickle.loads(PROGRAM)  # noqa: S301

    assert tried(unpickles, 1, mark=tmp_path / "mark").outcome == "code ran"
