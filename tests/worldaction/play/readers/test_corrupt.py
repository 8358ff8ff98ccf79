"""Damage of any kind to a set of any format ends in one line that names the file, or in a store that is sound."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from foreign_sets import write_minari, write_robomimic, write_v21, write_v30

from worldaction import spec
from worldaction.errors import UserError
from worldaction.play.convert import convert
from worldaction.play.readers import hdf5
from worldaction.play.readers.source import open_source
from worldaction.play.store import PlayStore, StoreWriter

for package in ("pyarrow", "av", "h5py", "PIL"):
    pytest.importorskip(package)

MUTATIONS = {"robomimic": 16, "minari": 16}
"""How often a set is damaged; others 60 times. HDF5 files are looked through by another process, which takes longer."""
SIZE = 8


def write_calvin(root: Path) -> None:
    """Training frames 10 to 13 and 20 to 21, validation frames 3 to 5."""
    for split, ranges in (("training", [[10, 13], [20, 21]]), ("validation", [[3, 5]])):
        (root / split / "lang_annotations").mkdir(parents=True)
        np.save(root / split / "ep_start_end_ids.npy", np.array(ranges))
        for first, last in ranges:
            for number in range(first, last + 1):
                np.savez_compressed(root / split / f"episode_{number:07d}.npz", **calvin_frame(number))
        (first, last) = ranges[0]
        found = {"language": {"task": ["lift"], "ann": ["lift it"]}, "info": {"indx": [(first, last)], "episodes": []}}
        path = root / split / "lang_annotations/auto_lang_ann.npy"
        np.save(path, np.array(found, dtype=object), allow_pickle=True)
    np.save(root / "training/scene_info.npy", np.array({"D": [0, 99]}, dtype=object), allow_pickle=True)


def calvin_frame(number: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(number)
    return {
        "rel_actions": rng.uniform(-1, 1, 7),
        "robot_obs": rng.normal(size=15),
        "scene_obs": rng.normal(size=24),
        "rgb_static": rng.integers(0, 256, (12, 12, 3), np.uint8),
        "rgb_gripper": rng.integers(0, 256, (8, 8, 3), np.uint8),
    }


def write_store(root: Path) -> None:
    """Two episodes."""
    with StoreWriter(root, image_size=SIZE, source="test", renderer="none") as writer:
        for number in range(2):
            frames = [calvin_frame(10 * number + i) for i in range(4)]
            arrays = {key: np.stack([frame[key] for frame in frames]) for key in frames[0]}
            cameras = {camera: arrays[camera][:, :SIZE, :SIZE] for camera in spec.CAMERAS}
            vectors = {spec.ROBOT: arrays["robot_obs"], spec.SCENE: arrays["scene_obs"]}
            writer.add_episode(cameras | vectors | {spec.ACTION: arrays["rel_actions"]}, kind="play")


def stills(write: Callable[..., object]) -> Callable[[Path], object]:
    return lambda root: write(root, videos=False)


MAKERS: dict[str, Callable[[Path], object]] = {
    "calvin": write_calvin,
    "store": write_store,
    "lerobot 2.1 with videos": write_v21,
    "lerobot 2.1 with images": stills(write_v21),
    "lerobot 3.0 with videos": write_v30,
    "lerobot 3.0 with images": stills(write_v30),
    "robomimic": lambda root: write_robomimic(root / "set.hdf5"),
    "minari": write_minari,
}


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """One whole set of every format, made when it is first asked for."""
    made: dict[str, Path] = {}

    def original(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp("sets") / "set"
            MAKERS[name](made[name])
        return made[name]

    return original


def files(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file())


# --- what can happen to a file


def flip(content: bytes, rng: np.random.Generator) -> bytes:
    """One to eight bits turned round, anywhere or near the beginning, where formats keep what they are."""
    changed = bytearray(content)
    end = len(changed) if rng.random() < 0.5 else min(len(changed), 256)
    for position in rng.integers(0, end, rng.integers(1, 9)):
        changed[position] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def cut(content: bytes, rng: np.random.Generator) -> bytes:
    return content[: rng.integers(len(content))]


def blank(content: bytes, rng: np.random.Generator) -> bytes:
    """A stretch of zeros, as a disk leaves it."""
    first = int(rng.integers(len(content)))
    last = min(len(content), first + int(rng.integers(1, 4096)))
    return content[:first] + bytes(last - first) + content[last:]


def grow(content: bytes, rng: np.random.Generator) -> bytes:
    return content + rng.bytes(int(rng.integers(1, 100)))


def noise(content: bytes, rng: np.random.Generator) -> bytes:
    return rng.bytes(len(content))


DAMAGES = (flip, flip, flip, cut, blank, grow, noise)


def mutations(root: Path, count: int, seed: int) -> Iterator[tuple[Path, str]]:
    """The set with one of its files damaged, again and again, and what was done; afterwards it is whole."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        path = files(root)[rng.integers(len(files(root)))]
        whole = path.read_bytes()
        damage = DAMAGES[rng.integers(len(DAMAGES))]
        if whole:
            path.write_bytes(damage(whole, rng))
            yield path, damage.__name__
            path.write_bytes(whole)


def try_to_convert(root: Path, path: Path, *, strict: bool = True) -> str | None:
    """The error that a conversion ends in, if it does; any other exception is a failure of the test."""
    shutil.rmtree(path, ignore_errors=True)
    source_path = root / "set.hdf5" if (root / "set.hdf5").exists() else root
    try:
        source = open_source(source_path, strict=strict)
        store = convert(source, path, image_size=SIZE, resume=False, strict=strict)
    except UserError as error:
        return str(error)
    store.verify()
    check_sound(PlayStore.open(path))
    return None


def check_sound(store: PlayStore) -> None:
    """Finite numbers, actions in range."""
    for key in store.meta.layout.vectors:
        assert store.frames[key].isfinite().all()
    assert store.frames[spec.ACTION].abs().max() <= 1 + 1e-3


@pytest.mark.parametrize("name", MAKERS)
def test_random_damage_is_refused_by_name_or_harmless(
    originals: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    root = originals(name)
    assert try_to_convert(root, tmp_path / "s") is None
    refused, count = 0, MUTATIONS.get(name, 60)
    for path, how in mutations(root, count, seed=list(MAKERS).index(name)):
        said = try_to_convert(root, tmp_path / "s")
        # what is left of it without what was damaged is sound
        lenient = try_to_convert(root, tmp_path / "s", strict=False)
        assert said is not None or lenient is None, (how, lenient)
        if said is not None:
            refused += 1
            assert "\n" not in said, (how, said)
            assert str(root) in said or str(tmp_path) in said, (path.name, how, said)
    # most damage is seen: otherwise the test damages nothing that is read
    assert refused > count / 3


@pytest.mark.parametrize("name", MAKERS)
def test_whatever_file_is_missing_the_rest_is_refused_or_does_without(
    originals: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    root = originals(name)
    optional = {"scene_info.npy", "auto_lang_ann.npy", "stats.json", "episodes_stats.jsonl", "checkpoint.json"}
    for path in files(root):
        path.rename(tmp_path / "away")
        said = try_to_convert(root, tmp_path / "s")
        (tmp_path / "away").rename(path)
        assert said is not None or path.name in optional, path


class Attack:
    """Unpickled the ordinary way, this runs a command."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (self.command,)


@pytest.mark.parametrize("name", MAKERS)
def test_no_file_of_any_set_is_run(originals: Callable[[str], Path], tmp_path: Path, name: str) -> None:
    root, mark = originals(name), tmp_path / "owned"
    np.save(tmp_path / "attack.npy", np.array(Attack(f"touch {mark}"), dtype=object), allow_pickle=True)
    np.savez(tmp_path / "attack.npz", rel_actions=np.array(Attack(f"touch {mark}"), dtype=object))
    attacks = [(tmp_path / f"attack.{ending}").read_bytes() for ending in ("npy", "npz")]
    attacks.append(pickle.dumps(Attack(f"touch {mark}")))
    for path in files(root):
        whole = path.read_bytes()
        for attack in attacks:
            path.write_bytes(attack)
            try_to_convert(root, tmp_path / "s")
        path.write_bytes(whole)
    assert not mark.exists()


VALUES: list[Any] = [None, -1, 2**70, 1.5, "x", [], {}, [[]], True, "../x", "\0"]


def changed(value: Any, rng: np.random.Generator) -> Any:
    """A JSON value with one thing in it replaced, removed or doubled."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = list(value)[rng.integers(len(value))]
        if rng.random() < 0.15:
            return {k: v for k, v in value.items() if k != key}
        return {**value, key: changed(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.85:
        at = int(rng.integers(len(value)))
        return [*value[:at], changed(value[at], rng), *value[at + 1 :]]
    return VALUES[rng.integers(len(VALUES))]


DESCRIPTIONS = {
    "store": ["store.json", "frames/meta.json"],
    "lerobot 2.1 with videos": ["meta/info.json", "meta/episodes.jsonl", "meta/tasks.jsonl"],
    "lerobot 3.0 with images": ["meta/info.json"],
    "minari": ["data/metadata.json"],
}


@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_descriptions_with_a_value_out_of_place_are_refused_or_harmless(
    originals: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    root, rng = originals(name), np.random.default_rng(5)
    for _ in range(MUTATIONS.get(name, 40)):
        path = root / DESCRIPTIONS[name][rng.integers(len(DESCRIPTIONS[name]))]
        whole = path.read_text()
        lines = [json.loads(line) for line in whole.splitlines()] if path.suffix == ".jsonl" else [json.loads(whole)]
        at = int(rng.integers(len(lines)))
        lines[at] = changed(lines[at], rng)
        path.write_text("\n".join(json.dumps(line) for line in lines))
        said = try_to_convert(root, tmp_path / "s")
        path.write_text(whole)
        assert said is None or ("\n" not in said and (str(root) in said or str(tmp_path) in said)), said


def test_a_file_that_hdf5_never_comes_to_an_end_of_is_given_up(
    originals: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hdf5, "PATIENCE", 1e-3)
    said = try_to_convert(originals("robomimic"), tmp_path / "s")
    assert said is not None
    assert re.search(r"set\.hdf5 is damaged .HDF5 finds no end in it", said)
