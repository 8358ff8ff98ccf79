"""Files are whole or absent, come back as they were written, and notice when they have changed."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import signal
import time
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from worldaction.errors import UserError
from worldaction.io import atomic
from worldaction.io.atomic import (
    load_checkpoint,
    load_metadata,
    load_tensors,
    replacing,
    save_checkpoint,
    save_tensors,
    write_json,
)
from worldaction.io.sealed_json import SEAL, read_json


@dataclass(frozen=True)
class Settings:
    lr: float
    cameras: tuple[str, ...]


def test_json_comes_back_in_plain_types_and_nan_as_null(tmp_path: Path) -> None:
    value = {"a": Settings(0.1, ("x",)), "n": np.float32(0.5), "t": torch.tensor([1, 2]), "bad": math.nan, 3: Path("p")}
    write_json(tmp_path / "new" / "v.json", value)
    expected = {"a": {"lr": 0.1, "cameras": ["x"]}, "n": 0.5, "t": [1, 2], "bad": None, "3": "p"}
    assert read_json(tmp_path / "new" / "v.json") == expected


def test_missing_and_damaged_json_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.json does not exist"):
        read_json(tmp_path / "absent.json")
    (tmp_path / "cut.json").write_text('{"a": 1')
    with pytest.raises(UserError, match=r"cut\.json is damaged"):
        read_json(tmp_path / "cut.json")


def test_a_failed_write_keeps_the_old_file_and_leaves_no_other(tmp_path: Path) -> None:
    path = tmp_path / "v.json"
    write_json(path, {"a": 1})

    def fail_halfway() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail_halfway()
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert read_json(path) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def rewrite_for_ever(path: Path) -> None:
    for i in range(10**9):
        save_checkpoint(path, {"x": torch.full((50_000,), i)}, extra={"i": i})


def test_a_checkpoint_is_whole_whenever_its_writer_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    for attempt in range(3):
        process = multiprocessing.get_context("fork").Process(target=rewrite_for_ever, args=(path,))
        process.start()
        while not path.exists():
            time.sleep(0.001)
        time.sleep(0.05 + 0.013 * attempt)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        state, extra = load_checkpoint(path)
        assert (state["x"] == extra["i"]).all()
    save_checkpoint(path, state)
    assert list(tmp_path.iterdir()) == [path], "the rest of a killed writer is removed by the next one"


def die_beside(path: Path) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(b"half")
        # as safetensors does, which renames it to the given name when it is whole
        temporary.with_name(".tmpXYZ").write_bytes(b"half")
        os._exit(1)


def test_a_writer_killed_right_after_its_file_took_its_place_leaves_no_other_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # nobody writes a finished stage's manifest again, so nobody would clear away what lay beside it
    seen: list[Path] = []
    monkeypatch.setattr(
        atomic, "fsync_folder", lambda folder: seen.extend(path for path in folder.rglob("*") if path.is_file())
    )
    with replacing(tmp_path / "manifest.json") as temporary:
        temporary.write_text("{}")
    assert seen == [tmp_path / "manifest.json"]


def test_what_a_library_wrote_beside_its_file_when_it_was_killed_is_removed_too(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    process = multiprocessing.get_context("fork").Process(target=die_beside, args=(path,))
    process.start()
    process.join()
    write_json(path, 1)
    assert list(tmp_path.iterdir()) == [path]


def test_tensors_can_be_read_by_whoever_can_read_the_json_beside_them(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {})
    save_tensors(tmp_path / "t.safetensors", {"a": torch.zeros(1)})
    usual = (tmp_path / "a.json").stat().st_mode
    assert (tmp_path / "t.safetensors").stat().st_mode == usual
    (tmp_path / "new").touch()
    assert (tmp_path / "new").stat().st_mode == usual


def test_tensors_and_their_metadata_come_back(tmp_path: Path) -> None:
    shared = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    tensors = {"a": shared, "tied": shared, "view": shared.T, "scalar": torch.tensor(2), "empty": torch.zeros(0, 3)}
    save_tensors(tmp_path / "t.safetensors", tensors, {"made": "here"})
    found = load_tensors(tmp_path / "t.safetensors")
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], value) for name, value in tensors.items())
    assert load_metadata(tmp_path / "t.safetensors") == {"made": "here"}


def identical(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(identical(value, other[key]) for key, value in one.items())
    if isinstance(one, list | tuple):
        return type(one) is type(other) and len(one) == len(other) and all(map(identical, one, other))
    return type(one) is type(other) and one == other


def trained(seed: int, steps: int) -> tuple[nn.Module, torch.optim.AdamW, torch.Generator]:
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    for parameter in model.parameters():
        nn.init.normal_(parameter, generator=generator)
    optimiser = torch.optim.AdamW(
        [{"params": model[0].parameters(), "lr": 0.1}, {"params": model[2].parameters()}], amsgrad=True
    )
    train(model, optimiser, generator, steps)
    return model, optimiser, generator


def train(model: nn.Module, optimiser: torch.optim.Optimizer, generator: torch.Generator, steps: int) -> None:
    for _ in range(steps):
        loss = model(torch.randn(8, 3, generator=generator)).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


def test_training_goes_on_from_a_checkpoint_bit_for_bit(tmp_path: Path) -> None:
    model, optimiser, generator = trained(0, 3)
    state = {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "rng": generator.get_state()}
    save_checkpoint(tmp_path / "c", state, extra={"step": 3})
    loaded, extra = load_checkpoint(tmp_path / "c")
    assert extra == {"step": 3}
    assert identical(dict(state), loaded | {"model": OrderedDict(loaded["model"])})

    other_model, other_optimiser, other_generator = trained(1, 1)
    other_model.load_state_dict(loaded["model"])
    other_optimiser.load_state_dict(loaded["optimiser"])
    other_generator.set_state(loaded["rng"])
    train(model, optimiser, generator, 3)
    train(other_model, other_optimiser, other_generator, 3)
    assert identical(dict(model.state_dict()), dict(other_model.state_dict()))


def test_plain_values_and_containers_come_back_as_they_were(tmp_path: Path) -> None:
    state = {
        "numbers": [1, 2.5, 1e-300, 0.1 + 0.2, math.inf, 2**100, True, None, "text"],
        "tuple": (torch.tensor([1.5], dtype=torch.bfloat16), [], {}, ()),
        7: {"7": torch.tensor(False)},
        "tensor": {"list": {"dict": 1}},
        "numpy": np.random.default_rng(0).bit_generator.state,
    }
    save_checkpoint(tmp_path / "c", state)
    assert identical(state, load_checkpoint(tmp_path / "c").state)


def test_what_a_checkpoint_cannot_hold_is_refused_by_its_place(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"object at /a/1 cannot"):
        save_checkpoint(tmp_path / "c", {"a": [1, object()]})
    with pytest.raises(TypeError, match="neither a string nor an integer"):
        save_checkpoint(tmp_path / "c", {(1, 2): 3})
    assert not (tmp_path / "c").exists()


def test_truncated_foreign_and_absent_checkpoints_are_user_errors(tmp_path: Path) -> None:
    path = tmp_path / "c"
    save_checkpoint(path, {"x": torch.arange(1000)})
    whole = path.read_bytes()
    for length in (0, 4, 60, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match="truncated"):
            load_checkpoint(path)
    path.write_bytes(b"\x80\x04\x95" + whole)
    with pytest.raises(UserError, match="truncated or no safetensors"):
        load_checkpoint(path)
    save_file({"x": torch.zeros(2)}, path)
    with pytest.raises(UserError, match="no checkpoint of this version"):
        load_checkpoint(path)
    save_file({}, path, metadata={"format": "worldaction checkpoint 1", "state": '{"tensor": "y"}', "extra": "{}"})
    with pytest.raises(UserError, match="damaged checkpoint"):
        load_checkpoint(path)
    with pytest.raises(UserError, match="does not exist"):
        load_checkpoint(tmp_path / "absent")
    with pytest.raises(UserError, match="truncated or no safetensors"):
        load_tensors(tmp_path)


def test_a_json_file_that_changed_is_refused_until_its_seal_is_deleted(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"a": 1, "b": [1.5, None, "é"]})
    assert read_json(path) == {"a": 1, "b": [1.5, None, "é"]}
    path.write_text(path.read_text().replace("1.5", "1.25"))
    with pytest.raises(UserError, match=r"x\.json has changed since it was written; undo that, or delete its 'seal'"):
        read_json(path)
    content = json.loads(path.read_text())
    del content[SEAL]
    path.write_text(json.dumps(content))
    assert read_json(path)["b"][0] == 1.25


def test_blanks_and_the_order_of_keys_are_no_change(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"b": 1, "a": {"d": 1, "c": 2}})
    content = json.loads((tmp_path / "x.json").read_text())
    (tmp_path / "x.json").write_text(json.dumps(content, sort_keys=True))
    assert read_json(tmp_path / "x.json") == {"b": 1, "a": {"d": 1, "c": 2}}


def test_formats_of_others_have_no_seal(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"a": 1}, sealed=False)
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": 1}


@pytest.mark.parametrize("position", [0.3, 0.6, 0.9])
def test_one_bit_of_a_tensor_is_noticed(tmp_path: Path, position: float) -> None:
    path = tmp_path / "t.safetensors"
    save_tensors(path, {"a": torch.randn(40, 40), "b": torch.ones(3, dtype=torch.bfloat16), "c": torch.tensor(True)})
    load_tensors(path)
    content = bytearray(path.read_bytes())
    content[int(position * len(content))] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"has changed since it was written|truncated or no safetensors"):
        load_tensors(path)


def test_tensors_of_somebody_else_are_not_taken_for_those_that_were_noted(tmp_path: Path) -> None:
    noted = save_tensors(tmp_path / "t.safetensors", {"a": torch.zeros(3)})
    assert load_tensors(tmp_path / "t.safetensors", expected=noted)
    save_tensors(tmp_path / "t.safetensors", {"a": torch.ones(3)})
    with pytest.raises(UserError, match=r"holds other numbers than its config\.json was written for"):
        load_tensors(tmp_path / "t.safetensors", expected=noted)
