"""The record survives crashes and restarts without losing or repeating a step, and progress is seen everywhere."""

from __future__ import annotations

import csv
import json
import logging
import math
import multiprocessing
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer import event_file_writer

from worldaction.errors import UserError
from worldaction.io import recorder as record
from worldaction.io.recorder import Recorder, log_prefix, progress, read_metrics, setup_logging, write_csv


@pytest.fixture(autouse=True)
def _loggers_as_before() -> Iterator[None]:
    yield
    for name in record.LOGGERS:
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).setLevel(logging.NOTSET)


def board(folder: Path, prefix: str, tag: str) -> list[tuple[int, float]]:
    events = EventAccumulator(str(folder / "tensorboard" / prefix)).Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


def steps(folder: Path, prefix: str) -> list[int]:
    return [line["step"] for line in read_metrics(folder) if line["prefix"] == prefix]


def test_metrics_are_read_back_from_json_lines_csv_and_tensorboard(tmp_path: Path) -> None:
    with Recorder(tmp_path) as out:
        out.log(1, {"loss/kl": 1.5, "lr": torch.tensor(0.25)}, prefix="world_model")
        out.log(2, {"loss/kl": 1.0}, prefix="world_model")
        out.log(7, {"return": 3}, prefix="open_drawer/ppo")
    write_csv(tmp_path)
    lines = [json.loads(text) for text in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["prefix"], line["step"]) for line in lines] == [
        ("world_model", 1),
        ("world_model", 2),
        ("open_drawer/ppo", 7),
    ]
    assert lines[0]["loss/kl"] == 1.5
    with open(tmp_path / "metrics.csv") as file:
        table = [(row["prefix"], row["step"], row["metric"], row["value"]) for row in csv.DictReader(file)]
    assert table == [
        ("world_model", "1", "loss/kl", "1.5"),
        ("world_model", "1", "lr", "0.25"),
        ("world_model", "2", "loss/kl", "1.0"),
        ("open_drawer/ppo", "7", "return", "3.0"),
    ]
    assert board(tmp_path, "world_model", "loss/kl") == [(1, 1.5), (2, 1.0)]


def test_a_line_is_on_disk_as_soon_as_it_is_logged(tmp_path: Path) -> None:
    out = Recorder(tmp_path)
    out.log(1, {"x": 1.0}, prefix="a")
    assert steps(tmp_path, "a") == [1]
    out.close()


def test_a_resumed_stage_records_no_step_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # the end of the names of TensorBoard's files, by which the second one of a second can come before the first
    monkeypatch.setattr(event_file_writer, "_global_uid", SimpleNamespace(get=iter(range(9, 99)).__next__))
    crashed = Recorder(tmp_path)
    for step in range(1, 6):
        crashed.log(step, {"x": float(step)}, prefix="a")
        crashed.log(step, {"y": float(step)}, prefix="b")
    for writer in crashed._boards.values():
        writer.flush()  # the process dies here: nothing is closed

    out = Recorder(tmp_path)
    out.rewind("a", 3)
    for step in (4, 5, 6):
        out.log(step, {"x": step + 0.5}, prefix="a")
    out.close()
    assert steps(tmp_path, "a") == [1, 2, 3, 4, 5, 6]
    assert steps(tmp_path, "b") == [1, 2, 3, 4, 5]
    assert board(tmp_path, "a", "x") == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.5), (5, 5.5), (6, 6.5)]
    assert len(board(tmp_path, "b", "y")) == 5


@pytest.mark.parametrize("half", ['{"prefix": "a", "st', "", '{"prefix": "a", "step": 3, "time": 0.0}' + " " * 9000])
def test_a_half_written_last_line_is_dropped_and_nothing_is_glued_to_it(tmp_path: Path, half: str) -> None:
    with Recorder(tmp_path) as out:
        out.log(1, {"x": 1.0}, prefix="a")
        out.log(2, {"x": 1.0}, prefix="a")
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write(half)
    assert steps(tmp_path, "a") == [1, 2]
    with Recorder(tmp_path) as out:
        out.log(3, {"x": 1.0}, prefix="a")
    assert steps(tmp_path, "a") == [1, 2, 3]


def test_a_file_that_is_one_half_line_becomes_empty(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"pre')
    Recorder(tmp_path).close()
    assert (tmp_path / "metrics.jsonl").read_text() == ""


def test_a_damaged_line_in_the_middle_is_named(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"prefix": "a", "step": 1, "time": 0}\n{"prefix\n{}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 2 is damaged"):
        list(read_metrics(tmp_path))


def help_out(folder: Path, name: str) -> None:
    with Recorder(folder / "artefacts" / name, boards=folder / "tensorboard") as out:
        for step in range(50):
            out.log(step, {"success": 0.5}, prefix=f"task/{name}")


def test_stages_record_side_by_side_and_their_run_joins_them(tmp_path: Path) -> None:
    names = ["one", "two", "three/deep"]
    with Recorder(tmp_path) as out:
        out.log(0, {"x": 1.0}, prefix="parent")
        processes = [
            multiprocessing.get_context("fork").Process(target=help_out, args=(tmp_path, name)) for name in names
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
            assert process.exitcode == 0
    write_csv(tmp_path)
    with open(tmp_path / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 151
    assert steps(tmp_path, "task/three/deep") == list(range(50))


def test_nan_is_recorded_as_null_and_stops_the_run_only_where_it_is_checked(tmp_path: Path) -> None:
    with Recorder(tmp_path) as out:
        out.log(1, {"loss": math.nan}, prefix="a")
        with pytest.raises(UserError, match="a: loss/kl is inf at step 2"):
            out.log(2, {"loss/kl": math.inf, "fine": 1.0}, prefix="a", check=True)
    lines: list[dict[str, Any]] = list(read_metrics(tmp_path))
    assert lines[0]["loss"] is None
    assert lines[1]["loss/kl"] is None
    assert lines[1]["fine"] == 1.0


def test_a_metric_cannot_take_a_name_of_the_record(tmp_path: Path) -> None:
    with Recorder(tmp_path) as out, pytest.raises(UserError, match="'step'"):
        out.log(1, {"step": 1.0}, prefix="a")


def test_progress_without_a_terminal_is_lines_of_the_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with progress(100, "world model", "step") as bar:
        for _ in range(100):
            bar.update(1, loss=0.123456)
    assert [message.split(",")[0] for message in caplog.messages] == ["world model: 100/100"]
    assert "step/s" in caplog.text
    assert "loss 0.1235" in caplog.text

    caplog.clear()
    monkeypatch.setattr(record, "SECONDS_BETWEEN_LINES", 0.0)
    with progress(100, "world model", "step", initial=40) as bar:
        bar.update(10)
    assert caplog.messages[0].startswith("world model: 50/100")
    assert "left" in caplog.messages[0]


def test_progress_on_a_terminal_is_a_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with progress(10, "evaluate", "episode") as bar:
        bar.update(10, success=0.5)
    shown = capsys.readouterr().err
    assert "evaluate: 100%" in shown
    assert "success=0.5" in shown
    assert not caplog.messages


def test_the_log_goes_to_stderr_and_the_file_once_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    setup_logging(tmp_path / "early.log")
    setup_logging(tmp_path / "run" / "console.log")
    for name in record.LOGGERS:
        logging.getLogger(f"{name}.part").info("hello from %s", name)
    shown = capsys.readouterr().err
    written = (tmp_path / "run" / "console.log").read_text()
    for name in record.LOGGERS:
        assert shown.count(f"hello from {name}") == 1
        assert written.count(f"hello from {name}") == 1
    assert (tmp_path / "early.log").read_text() == ""


def test_lines_are_logged_under_the_name_of_the_arm_that_says_them(tmp_path: Path) -> None:
    setup_logging(tmp_path / "console.log")
    logger = logging.getLogger("worldaction")
    with log_prefix("base"):
        logger.info("100 %% of %d", 3)
    logger.info("done")
    text = (tmp_path / "console.log").read_text().splitlines()
    assert [line.split(" ", 4)[-1] for line in text] == ["base: 100 % of 3", "done"]
