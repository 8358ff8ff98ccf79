"""The campaign's kills and full disks: what they strike, and that they find what they are there to find."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_study import copied, environment, finished_run, place

from experiments.campaign.strikes import disks, kills, signals
from experiments.campaign.strikes.base import Outcome
from experiments.campaign.strikes.forks import Ended
from experiments.campaign.strikes.table import known_strikes, table
from experiments.campaign.strikes.tiny import differences
from worldaction.io.atomic import load_tensors, save_tensors
from worldaction.io.sealed_json import read_json

STRUCK = """
import json, os, sys
from pathlib import Path
from experiments.campaign.strikes.faults import Fault, install
from worldaction.io import atomic

path, planted = Path(sys.argv[1]) / "a.json", sys.argv[2] == "planted"
atomic.write_json(path, {"value": "old"})
read = path.read_text

def written_in_place(path, value):
    with open(path, "w") as file:
        file.write('{"value": ')
        file.flush()
        os.fsync(file.fileno())
        file.write(json.dumps(value["value"]) + "}")

write = written_in_place if planted else atomic.write_json
found = []
for at in range(1, 13):
    child = os.fork()
    if child == 0:
        install(Fault(at, str(path.parent)))
        write(path, {"value": "new"})
        os._exit(0)
    killed = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -9
    try:
        value = json.loads(read())["value"]
    except ValueError:
        value = "damaged"
    found.append([killed, value])
print(json.dumps(found))
"""


def struck(folder: Path, *, planted: bool) -> list[tuple[bool, str]]:
    """What is in a file after its writer was killed at its n-th file operation: killed or not, and what is read."""
    name = "planted" if planted else "ours"
    done = subprocess.run(
        [sys.executable, "-c", STRUCK, str(folder), name],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
        timeout=90,
    )
    return [(killed, value) for killed, value in json.loads(done.stdout)]


def test_a_writer_that_is_killed_at_any_file_operation_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    found = struck(tmp_path, planted=False)
    assert sum(killed for killed, _ in found) >= 5
    assert {value for _, value in found} == {"old", "new"}


def test_a_writer_that_writes_in_place_is_found(tmp_path: Path) -> None:
    assert (True, "damaged") in struck(tmp_path, planted=True)


def test_one_bit_of_one_tensor_is_a_difference(tmp_path: Path) -> None:
    run = copied(finished_run(), tmp_path / "run")
    assert differences(run, finished_run()) == []
    path = place(run, "seed0/world_model") / "model.safetensors"
    tensors = load_tensors(path)
    name = next(name for name, tensor in tensors.items() if tensor.is_floating_point() and tensor.numel())
    tensors[name].view(-1)[0] = torch.nextafter(tensors[name].view(-1)[0], torch.tensor(9.0))
    save_tensors(path, tensors)
    (found,) = differences(run, finished_run())
    assert found.endswith(f"model.safetensors:{name}")


def test_a_file_that_is_left_over_is_a_difference(tmp_path: Path) -> None:
    run = copied(finished_run(), tmp_path / "run")
    (run / "rest").touch()
    assert differences(run, finished_run()) == ["rest"]


SAID = "step 3\nerror: cannot write run/a: No space left on device (1.0 MB left); free some room\n"


@pytest.mark.parametrize(
    ("ended", "well"),
    [
        (Ended(2, SAID), True),
        (Ended(1, SAID), False),
        (Ended(2, "Traceback (most recent call last):\n" + SAID), False),
        (Ended(2, "--- Logging error ---\nOSError\n" + SAID), False),
        (Ended(2, "error: something else\n"), False),
        (Ended(2, SAID, hung=True), False),
    ],
)
def test_a_full_disk_ends_well_in_one_line_that_names_the_file(ended: Ended, well: bool) -> None:
    assert disks.clear(ended) == well


LAST = "ended by SIGTERM; nothing is lost; go on with: python -m experiments.calvin --resume run\n"


@pytest.mark.parametrize(
    ("ended", "well"),
    [
        (Ended(143, LAST), True),
        (Ended(130, LAST), False),
        (Ended(-15, ""), False),
        (Ended(143, "resource_tracker: There appear to be 6 leaked semaphores\n" + LAST), False),
        (Ended(143, "Traceback (most recent call last):\n" + LAST), False),
    ],
)
def test_a_signal_ends_a_run_well_by_its_own_status_and_one_line(ended: Ended, well: bool) -> None:
    assert signals.polite(ended, 15) == well


def test_what_a_study_that_was_left_alone_comes_to_is_told_apart() -> None:
    assert kills.broken(Ended(2, "error: x"), ["1 s"], "2 s") == Outcome(
        "refused", "status 2, error: x (2 s, after 1 s)", 2
    )
    assert kills.broken(Ended(1, "Traceback\nKeyError"), [], "2 s").kind == "traceback"
    assert kills.broken(Ended(-9, "", hung=True), [], "2 s").kind == "hang"


def test_the_table_counts_strikes_and_names_what_was_not_as_promised() -> None:
    assert set(known_strikes()) == {"kills", "signals", "disks", "two processes"}
    found = {"kills": [Outcome("correct", "", 10), Outcome("hang", "", 3)], "disks": [Outcome("correct", "", 12)]}
    assert table(found).rows == [
        ["kills", "2", "13", "10 of 13", "hang"],
        ["disks", "1", "12", "12 of 12", "nothing"],
    ]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("module", [kills, disks])
def test_a_run_that_is_struck_comes_to_the_same_to_the_bit(
    module: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kills, "KILLS", 4)
    monkeypatch.setattr(disks, "STRIKES", 4)
    outcome = module.attack(0, tmp_path / "struck")
    assert outcome.kind == "correct", outcome
    assert outcome.strikes >= 2


def test_a_fault_meets_writing_alone(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path\n"
        "from experiments.campaign.strikes.faults import Fault, install; from experiments.guard import guarded\n"
        "from worldaction.io.atomic import write_json; from worldaction.io.sealed_json import read_json\n"
        f"path = Path({str(tmp_path / 'a.json')!r}); write_json(path, {{'a': 1}})\n"
        f"install(Fault(1, {str(tmp_path)!r}, {errno.EROFS}))\n"
        "assert read_json(path) == {'a': 1}\n"
        "sys.exit(guarded(lambda: write_json(path, {'a': 2})))"
    )
    done = subprocess.run([sys.executable, "-c", script], env=environment(), capture_output=True, text=True, timeout=90)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: cannot write {tmp_path / 'a.json'}: Read-only file system; make the folder")
    assert read_json(tmp_path / "a.json") == {"a": 1}
