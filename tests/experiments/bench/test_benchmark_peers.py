"""Other libraries stay apart from each other and from this process, and run as they are."""

import os
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from experiments.bench.base import Sizes, Windows, Workload
from experiments.bench.ours import Ours
from experiments.bench.peers.fetched import Settings, import_from
from experiments.bench.peers.libraries import PEERS, libraries
from experiments.bench.peers.torchrl_rssm import TorchRL
from worldaction.errors import UserError

CPU = torch.device("cpu")
SIZES = Sizes(deter=64, groups=8, classes=4, hidden=32, action=5)
WORKLOAD = Workload(SIZES, batch=3, horizon=2)
CHECKOUTS = "WORLDACTION_PEERS"
"""A folder that holds checkouts under the names of `PEERS`: their adapters are tested where it is given."""


def _checkout(folder: Path, **files: str) -> Path:
    folder.mkdir()
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    return folder


def test_two_checkouts_with_modules_of_one_name_are_kept_apart(tmp_path: Path) -> None:
    texts = [f"import tools\ndef who(): return tools.NAME\nSIZE = {n}" for n in (1, 2)]
    one = _checkout(tmp_path / "one", networks=texts[0], tools="NAME = 'one'")
    two = _checkout(tmp_path / "two", networks=texts[1], tools="NAME = 'two'")
    first, second = (import_from(folder, ["networks"])["networks"] for folder in (one, two))
    assert [first.who(), second.who(), first.SIZE, second.SIZE] == ["one", "two", 1, 2]


def test_importing_a_checkout_leaves_no_trace(tmp_path: Path) -> None:
    mine = ModuleType("tools")
    checkout = _checkout(tmp_path / "peer", networks="import tools\nprint('hello')", tools="")
    path, sys.modules["tools"] = list(sys.path), mine
    try:
        import_from(checkout, ["networks"])
        assert sys.modules["tools"] is mine
        assert "networks" not in sys.modules
        assert sys.path == path
    finally:
        del sys.modules["tools"]


def test_a_stand_in_is_found_meanwhile_and_not_afterwards(tmp_path: Path) -> None:
    checkout = _checkout(tmp_path / "peer", networks="import no_such_framework as f\nNAME = f.__name__")
    stand_in = ModuleType("no_such_framework")
    assert import_from(checkout, ["networks"], instead={"no_such_framework": stand_in})["networks"].NAME
    assert "no_such_framework" not in sys.modules


def test_what_a_checkout_lacks_is_named(tmp_path: Path) -> None:
    checkout = _checkout(tmp_path / "peer", networks="import no_such_package")
    with pytest.raises(UserError, match=r"has no models\.py; give the folder of that checkout"):
        import_from(checkout, ["models"])
    with pytest.raises(UserError, match="needs no_such_package, which is not installed"):
        import_from(checkout, ["networks"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("lumos", "give lumos=FOLDER"),
        ("lumos=/no/such/folder", "the folder of a checkout of lumos"),
        ("lomus=.", "did you mean 'lumos'"),
        ("r2dreamer=tests", "has no rssm.py"),
    ],
)
def test_a_peer_that_cannot_be_is_refused_in_one_line(text: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as refusal:
        libraries([text], CPU, compiled=False)
    assert "\n" not in str(refusal.value)


def test_settings_are_read_and_written_as_attributes() -> None:
    settings = Settings(a=1)
    settings.b = 2
    assert {**settings} == {"a": settings.a, "b": 2}
    assert not hasattr(settings, "c")


def test_flops_of_ours_and_of_torchrl_are_those_of_their_matrices() -> None:
    flat, deter, hidden, action = SIZES.groups * SIZES.classes, SIZES.deter, SIZES.hidden, SIZES.action
    head = deter * hidden + hidden * flat
    ours = Ours(CPU, compiled=False).imagination(WORKLOAD)["ours, reference fp32"]
    assert ours.flops / ours.amount == 2 * (hidden * action + 3 * deter * (hidden + deter) + head)
    theirs = TorchRL(CPU, compiled=False).imagination(WORKLOAD)["TorchRL gru"]
    assert theirs.flops / theirs.amount == 2 * ((flat + action) * hidden + 3 * deter * (hidden + deter) + head)


def test_torchrl_trains_all_of_its_world_model() -> None:
    work = TorchRL(CPU).training(Windows(SIZES, batch=1, length=2, depth=8))["TorchRL"]
    work.run()
    assert work.parameters > 0
    assert work.flops > 0


@pytest.mark.parametrize("name", PEERS)
def test_the_adapter_of_a_peer_runs(name: str) -> None:
    checkouts = os.environ.get(CHECKOUTS)
    if not checkouts:
        pytest.skip(f"set {CHECKOUTS} to a folder that holds checkouts of {', '.join(PEERS)}")
    peer = libraries([f"{name}={checkouts}/{name}"], CPU, compiled=False)[-1]
    works = [*peer.imagination(WORKLOAD).values(), *peer.training(Windows(SIZES, batch=2, length=2, depth=8)).values()]
    for work in works:
        work.run()
        assert work.parameters > 0
        assert work.flops > 0
        assert not work.ours
