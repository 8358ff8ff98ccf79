"""The check for machines with a GPU is rehearsed without one: whatever fails is written down, and stops nothing."""

import json
import sys
import time
from pathlib import Path

import pytest
import torch

from experiments.bench import gpu_check
from experiments.bench.gpu_check import Check, Outcome, conduct, main, progress_of
from experiments.study.settings import DEBUG
from worldaction.config import to_dict
from worldaction.errors import UserError
from worldaction.io.atomic import write_json
from worldaction.io.recorder import Recorder


def _check(out: Path, *, seconds: float = 300.0) -> Check:
    out.mkdir(exist_ok=True)
    return Check(out, "cpu", time.monotonic() + seconds)


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what is missing where it is missing")
def test_without_a_gpu_it_says_so_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no CUDA GPU .* rehearse it with --cpu") as refusal:
        main(["--out", str(tmp_path / "out")])
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "out").exists()


def test_a_rehearsal_builds_and_times_as_a_gpu_would(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--cpu", "--out", str(tmp_path), "--parts", "build", "--minutes", "5"])
    text = (tmp_path / "gpu_check.md").read_text()
    assert capsys.readouterr().out.strip().endswith("gpu_check.md")
    assert "a rehearsal without a GPU" in text
    assert "### build: done" in text
    assert "| rollout | reference |" in text


def test_what_fails_is_written_down_and_the_next_part_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Check) -> Outcome:
        raise UserError("the compiler is missing")

    monkeypatch.setattr(gpu_check, "PARTS", {"build": broken, "tests": lambda _: Outcome("done", 1.0, "all passed")})
    with pytest.raises(UserError, match="build failed; see"):
        main(["--cpu", "--out", str(tmp_path), "--parts", "build,tests"])
    text = (tmp_path / "gpu_check.md").read_text()
    assert "### build: failed, 0 s\n\nthe compiler is missing" in text
    assert "### tests: done, 1 s\n\nall passed" in text


def test_a_later_call_adds_to_what_an_earlier_one_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tests", "build"):
        monkeypatch.setitem(gpu_check.PARTS, name, lambda _, name=name: Outcome("done", 2.0, f"text of {name}"))  # type: ignore[misc]
        conduct(_check(tmp_path), [name])
    assert json.loads((tmp_path / "gpu_check.json").read_text())["parts"].keys() == {"tests", "build"}
    text = (tmp_path / "gpu_check.md").read_text()
    assert text.index("text of build") < text.index("text of tests")


def test_a_part_that_crashes_is_told_by_the_end_of_its_log(tmp_path: Path) -> None:
    check = _check(tmp_path)
    state, _ = check.run("crash", "-c", "print('almost'); import os; os.abort()")
    assert state == "failed"
    assert "almost" in check.last_lines("crash")


def test_a_part_is_interrupted_when_the_time_is_up_and_may_save_what_it_has(tmp_path: Path) -> None:
    program = "import time\nprint('begun')\ntry:\n    time.sleep(300)\nexcept KeyboardInterrupt:\n    print('saved')"
    check = _check(tmp_path, seconds=gpu_check.PATIENCE + 7)
    state, seconds = check.run("long", "-c", program)
    assert state == "interrupted"
    assert seconds < 30
    assert "begun\nsaved" in (tmp_path / "long.log").read_text()


def test_what_does_not_end_by_itself_is_killed_with_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_check, "PATIENCE", 1.0)
    child = f"import subprocess; p = subprocess.Popen([{sys.executable!r}, '-c', 'import time; time.sleep(300)'])"
    stubborn = f"import signal, time; signal.signal(2, signal.SIG_IGN); {child}; print(p.pid); time.sleep(300)"
    state, _ = _check(tmp_path, seconds=8).run("stubborn", "-c", stubborn)
    assert state == "interrupted"
    pid = int((tmp_path / "stubborn.log").read_text())
    end = time.monotonic() + 20
    while _alive(pid) and time.monotonic() < end:
        time.sleep(0.05)
    assert not _alive(pid)


def _alive(pid: int) -> bool:
    """Whether a process is there and no zombie, which nobody has asked for its exit status yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_no_part_begins_when_the_time_is_up(tmp_path: Path) -> None:
    assert _check(tmp_path, seconds=1).run("late", "-c", "print('x')") == ("interrupted", 0.0)
    assert not (tmp_path / "late.log").exists()


def test_training_is_told_in_steps_a_second_and_losses(tmp_path: Path) -> None:
    write_json(tmp_path / "config.json", to_dict(DEBUG))
    with Recorder(tmp_path / "artefacts/seed0/world_model", boards=tmp_path / "tensorboard") as recorder:
        recorder.log(25, {"loss/kl": 2.0}, prefix="seed0/world_model")
        time.sleep(0.1)
        recorder.log(75, {"loss/kl": 1.5, "gradient_norm": 3.0}, prefix="seed0/world_model")
    text = progress_of(tmp_path)
    assert f"Preset debug: {DEBUG.world_model.steps} steps" in text
    row = text.splitlines()[-1].split(" | ")
    assert row[0] == "| seed0/world_model"
    assert row[1] == "75"
    assert 100 < float(row[2]) <= 510
    assert row[3] == "kl 1.5 |"


@pytest.mark.slow
def test_training_goes_on_where_the_time_was_up(tmp_path: Path) -> None:
    """The preset `debug`: interrupted in its first minute, whatever it is doing then, and resumed."""
    first = gpu_check.train(_check(tmp_path, seconds=gpu_check.PATIENCE + 15))
    assert first.state == "interrupted"
    assert (tmp_path / "train/config.json").exists()
    later = gpu_check.train(_check(tmp_path, seconds=gpu_check.PATIENCE + 40))
    assert later.state in ("interrupted", "done"), later.text
    assert "--resume" not in (tmp_path / "train.log").read_text() or later.state == "interrupted"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["--parts", "bild"], "did you mean 'build'"), (["--minutes", "0"], "--minutes 0.0: give more than 0")],
)
def test_arguments_that_cannot_be_are_refused(arguments: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        main(["--cpu", *arguments])
