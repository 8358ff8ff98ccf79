"""A LeRobot set that we wrote and that somebody edited since: what our extra file tells of it is told no longer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from listed_source import small_set

from envs.tasks import SENTENCES, TASKS
from worldaction.play.inspect.check import check_frames
from worldaction.play.lerobot_layout import EXTRA
from worldaction.play.readers.source import open_source
from worldaction.play.writers.base import copy
from worldaction.play.writers.lerobot import LeRobotWriter

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
pytest.importorskip("av")

SAID = {name: task.description for name, task in TASKS.items()}


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """Play with three segments, one of which failed; a near miss without any; a demonstration."""
    source = small_set()
    with LeRobotWriter(tmp_path / "set", layout=source.layout, rate=30, sentences=SAID) as writer:
        copy(source, writer, image_size=None)
    return tmp_path / "set"


def told(path: Path, **options: Any) -> list[list[tuple[str, int, int, bool | None]]]:
    episodes = open_source(path, **options).episodes
    return [[(s.task, s.start, s.stop, s.success) for s in episode.segments] for episode in episodes]


WHOLE = [
    [("open_drawer", 3, 40, True), ("turn_on_led", 30, 65, True), ("close_drawer", 66, 70, False)],
    [],
    [("open_drawer", 0, 31, True)],
]


def test_an_unedited_set_tells_all_that_was_written(written: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert told(written, names=SENTENCES) == WHOLE
    assert not caplog.messages


def rename(root: Path, old: str, new: str) -> None:
    """As lerobot's modify_tasks does in place: in the list of tasks, and in that of the episodes."""
    path = root / "meta/tasks.parquet"
    table = parquet.read_table(path)
    tasks = [new if task == old else task for task in table.column("task").to_pylist()]
    at = table.column_names.index("task")
    parquet.write_table(table.set_column(at, "task", pa.array(tasks)), path)
    path = root / "meta/episodes/chunk-000/file-000.parquet"
    table = parquet.read_table(path)
    said = [[new if task == old else task for task in of] for of in table.column("tasks").to_pylist()]
    at = table.column_names.index("tasks")
    parquet.write_table(table.set_column(at, "tasks", pa.array(said)), path)


def test_tasks_that_were_changed_since_are_those_of_the_set(written: Path, caplog: pytest.LogCaptureFixture) -> None:
    rename(written, SAID["turn_on_led"], "wipe the table")
    found = told(written, names=SENTENCES)
    assert [task for task, *_ in found[0]] == ["open_drawer", "wipe the table"]
    assert {success for *_, success in found[0]} == {None}
    # nobody touched the others
    assert found[1:] == WHOLE[1:]
    assert "worldaction.json tells of other tasks than the set in episodes 0" in caplog.text
    # what is not about tasks holds still
    splits = [(episode.kind, episode.split, episode.scene) for episode in open_source(written).episodes]
    assert splits == [(e.kind, e.split, e.scene) for e in small_set().episodes]
    assert check_frames(open_source(written), lambda _: None).problems == []


def test_a_set_whose_extra_file_was_dropped_has_no_task_called_play(
    written: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (written / EXTRA).unlink()
    assert told(written, names=SENTENCES) == [
        [("open_drawer", 3, 30, None), ("turn_on_led", 30, 65, None)],
        [],
        [("open_drawer", 0, 31, None)],
    ]
    assert "does not say of 3 of 3 attempts whether they succeeded" in caplog.text
    episodes = open_source(written).episodes
    assert [episode.kind for episode in episodes] == ["demo", "play", "demo"]
    # without names, tasks are what people say
    assert {s.task for e in episodes for s in e.segments} == {SAID["open_drawer"], SAID["turn_on_led"]}


def test_what_was_said_is_kept_beside_the_name(written: Path) -> None:
    (written / EXTRA).unlink()
    segment = open_source(written, names=SENTENCES).episodes[2].segments[0]
    assert (segment.task, segment.sentence) == ("open_drawer", SAID["open_drawer"])


def test_an_extra_file_without_tasks_is_taken_as_it_is(written: Path) -> None:
    about = json.loads((written / EXTRA).read_text())
    del about["tasks"]
    # where files have one
    about.pop("seal", None)
    (written / EXTRA).write_text(json.dumps(about))
    assert told(written) == WHOLE


def test_every_task_has_sentences_of_its_own() -> None:
    assert set(SENTENCES.values()) == set(TASKS)
    assert all(SENTENCES[task.description] == name for name, task in TASKS.items())
    assert SENTENCES["open drawer"] == "open_drawer"


# ---- with lerobot's own tools, where the package is


@pytest.fixture
def theirs(written: Path) -> Any:
    """The set as lerobot opens it, and its tools."""
    tools = pytest.importorskip("lerobot.datasets.dataset_tools", exc_type=ImportError)
    dataset = pytest.importorskip("lerobot.datasets.lerobot_dataset").LeRobotDataset("ours/set", root=written)
    return dataset, tools


def green(path: Path, episode: int) -> list[float]:
    """How green each picture of an episode is: no two frames of the small set are alike."""
    blocks = open_source(path).blocks(episode, image_size=None)
    return [float(value) for block in blocks for value in block["rgb_static"][..., 1].mean((1, 2))]


def test_lerobot_deletes_episodes(written: Path, tmp_path: Path, theirs: Any) -> None:
    dataset, tools = theirs
    tools.delete_episodes(dataset, [1], output_dir=tmp_path / "left", repo_id="ours/left")
    assert told(tmp_path / "left", names=SENTENCES) == [
        [("open_drawer", 3, 30, None), ("turn_on_led", 30, 65, None)],
        [("open_drawer", 0, 31, None)],
    ]
    # encoded anew, with some loss
    assert green(tmp_path / "left", 1) == pytest.approx(green(written, 2), abs=6)


def test_lerobot_splits_and_merges(written: Path, tmp_path: Path, theirs: Any) -> None:
    dataset, tools = theirs
    parts = tools.split_dataset(dataset, {"one": [0], "other": [1, 2]}, output_dir=tmp_path / "parts")
    both = [parts["other"], parts["one"]]
    tools.merge_datasets(both, output_repo_id="ours/both", output_dir=tmp_path / "both")
    assert [len(of) for of in told(tmp_path / "both", names=SENTENCES)] == [0, 1, 2]
    for number, before in enumerate((1, 2, 0)):
        assert green(tmp_path / "both", number) == pytest.approx(green(written, before), abs=6)


def test_lerobot_changes_tasks_in_place(written: Path, theirs: Any, caplog: pytest.LogCaptureFixture) -> None:
    dataset, tools = theirs
    tools.modify_tasks(dataset, episode_tasks={2: "wipe the table"})
    assert told(written, names=SENTENCES) == [*WHOLE[:2], [("wipe the table", 0, 31, None)]]
    assert "tells of other tasks than the set in episodes 2" in caplog.text
