"""Losses are found by name, by entry point and by module:Class, and what the user typed is read exactly or refused."""

from __future__ import annotations

import importlib.metadata
import itertools
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import worldaction.losses
from worldaction.errors import UserError
from worldaction.losses import available, build, describe, merge, parse
from worldaction.losses.inverse_dynamics import InverseDynamics
from worldaction.losses.registry import find
from worldaction.losses.tools.contract import check, noise_batch, tiny_model
from worldaction.world_model.model import total

SHAPES = tiny_model().shapes

OWN_LOSS = '''
"""Small embeddings."""
from dataclasses import dataclass
from worldaction.losses import Loss, LossOutput

@dataclass(frozen=True)
class Options:
    scale: float = 2.0
    power: int = 2
    smooth: bool = False
    norm: str = "mean"

class Small(Loss):
    name = "small"
    Options = Options
    needs = frozenset({"embed"})

    def forward(self, latents, batch, model):
        return LossOutput(latents.embed.abs().pow(self.options.power).mean(-1))
'''


@pytest.fixture(autouse=True)
def _clean_imports() -> Iterator[None]:
    """Forget modules and paths that a test brought in."""
    # another test may have imported one of this name
    sys.modules.pop("my_losses", None)
    modules, path = set(sys.modules), list(sys.path)
    yield
    sys.path[:] = path
    # ours stay: an import of theirs would be another class of the same name
    for name in set(sys.modules) - modules:
        if name.partition(".")[0] not in ("worldaction", "torch", "tensordict"):
            del sys.modules[name]


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a loss in it."""
    (tmp_path / "my_losses.py").write_text(OWN_LOSS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


# Reading --------------------------------------------------------------------------------------------------------------


def test_every_form_comes_back_from_its_text() -> None:
    targets = ["kl", "inverse_dynamics", "my_losses:Mine", "a.b.c:D"]
    scales = ["", "=1", "=0.1", "=1e-3", "=1000"]
    options = ["", ",free_nats=1", ",free_nats=1,balance=0.5"]
    for parts in itertools.product(targets, scales, options):
        text = "".join(parts)
        assert str(parse(text)) == text
        assert parse(str(parse(text))) == parse(text)


def test_the_scale_may_be_written_as_an_option_too() -> None:
    assert parse("kl,free_nats=1,scale=3") != parse("kl")
    assert str(parse("kl,free_nats=1,scale=3")) == "kl=3,free_nats=1"


@pytest.mark.parametrize("text", ["kl=1,free", "kl,=3", "kl,free_nats=", "kl=1,", "", "=3", ",free_nats=1", "kl="])
def test_what_cannot_be_read_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UserError, match=r"write for instance") as raised:
        parse(text)
    assert repr(text) in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("text", ["kl=1,scale=2", "kl,free_nats=1,free_nats=2"])
def test_an_option_given_twice_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="twice"):
        parse(text)


def test_merge_completes_what_the_user_left_out_and_keeps_what_they_said() -> None:
    preset = ["reconstruction=1,proprio=50,share=0.25", "kl=0.3,free_nats=1", "inverse_dynamics=100"]
    assert merge(["kl", "reconstruction"], preset) == ("kl=0.3,free_nats=1", "reconstruction=1,proprio=50,share=0.25")
    assert merge(["kl=3"], preset) == ("kl=3,free_nats=1",)
    assert merge(["kl,free_nats=0"], preset) == ("kl=0.3,free_nats=0",)
    assert merge(["kl,balance=0.5"], preset) == ("kl=0.3,free_nats=1,balance=0.5",)
    assert merge(["mine:Loss=2"], preset) == ("mine:Loss=2",)
    assert merge(preset, preset) == tuple(preset)


# Building -------------------------------------------------------------------------------------------------------------


def test_options_arrive_with_their_types() -> None:
    built = build(["inverse_dynamics=5,hidden=16", "kl,free_nats=1"], SHAPES)
    assert list(built) == ["inverse_dynamics", "kl"]
    head = built["inverse_dynamics"]
    assert isinstance(head, InverseDynamics)
    assert (head.options.scale, head.options.hidden) == (5.0, 16)
    assert isinstance(head.options.hidden, int)
    assert (built["kl"].options.scale, built["kl"].options.free_nats) == (0.3, 1.0)


def test_an_unknown_loss_is_answered_with_the_nearest_name() -> None:
    with pytest.raises(UserError, match=r"unknown loss 'inverse_dynamic'; did you mean 'inverse_dynamics'\?"):
        find("inverse_dynamic")
    with pytest.raises(UserError, match=r"unknown loss 'zzz'; known: .*kl"):
        find("zzz")


def test_an_unknown_option_is_answered_with_the_nearest_name() -> None:
    with pytest.raises(UserError, match=r"'free_nat'; did you mean 'free_nats'\?"):
        build(["kl=1,free_nat=1"], SHAPES)


@pytest.mark.parametrize("text", ["kl=high", "kl,free_nats=one", "inverse_dynamics,hidden=many", "kl=nan", "kl=inf"])
def test_a_value_that_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="give a") as raised:
        build([text], SHAPES)
    assert text.rpartition("=")[2] in str(raised.value)


def test_a_loss_is_listed_once() -> None:
    with pytest.raises(UserError, match=r"'kl' is listed twice"):
        build(["kl", "kl=2"], SHAPES)


def test_truth_values_are_read_strictly(workdir: Path) -> None:
    for text, value in (("true", True), ("yes", True), ("1", True), ("false", False), ("No", False), ("0", False)):
        built = build([f"my_losses:Small,smooth={text}"], SHAPES)
        assert built["small"].options.smooth is value
    with pytest.raises(UserError, match="'maybe'"):
        build(["my_losses:Small,smooth=maybe"], SHAPES)
    assert build(["my_losses:Small,norm=sum"], SHAPES)["small"].options.norm == "sum"


# Finding --------------------------------------------------------------------------------------------------------------


def test_module_and_class_are_found_in_the_working_directory_and_keep_to_the_contract(workdir: Path) -> None:
    cls = find("my_losses:Small")
    assert cls.name == "small"
    assert check(cls) == []


def test_a_named_loss_does_not_put_the_working_directory_on_the_path(workdir: Path) -> None:
    find("kl")
    assert str(workdir) not in sys.path


def test_a_file_in_the_working_directory_does_not_hide_an_installed_module(workdir: Path) -> None:
    (workdir / "colorsys.py").write_text("raise RuntimeError('the wrong one')")
    sys.modules.pop("colorsys", None)
    find("my_losses:Small")
    import colorsys

    assert colorsys.rgb_to_hsv(0, 0, 0) == (0, 0, 0)


@pytest.mark.parametrize("target", ["nowhere:Mine", "my_losses:Missing", "my_losses:dataclass", "my_losses:", ":Small"])
def test_what_is_not_there_is_named(workdir: Path, target: str) -> None:
    with pytest.raises(UserError, match=target):
        find(target)


def test_an_import_that_fails_inside_the_users_module_is_not_hidden(workdir: Path) -> None:
    (workdir / "needs_more.py").write_text("import a_package_that_nobody_has\n")
    with pytest.raises(ModuleNotFoundError, match="a_package_that_nobody_has"):
        find("needs_more:Mine")


def test_a_loss_in_one_new_file_of_the_folder_trains_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "small.py").write_text(OWN_LOSS)
    monkeypatch.setattr(worldaction.losses, "__path__", [*worldaction.losses.__path__, str(tmp_path)])
    assert available()["small"] == "worldaction.losses.small:Small"
    assert "small" in describe()
    model = tiny_model(["small=3", "kl"])
    terms, metrics, _ = model.losses_of(noise_batch())
    assert terms["small"] == 3 * metrics["loss/small"]
    before = [p.detach().clone() for p in model.encoder.parameters()]
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    total(terms).backward()
    optimizer.step()
    assert any(not torch.equal(a, b) for a, b in zip(before, model.encoder.parameters(), strict=True))


def test_a_loss_of_an_installed_package_is_found_by_its_entry_point(
    workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(workdir))

    def entry_points(*, group: str) -> list[importlib.metadata.EntryPoint]:
        assert group == "worldaction.losses"
        return [importlib.metadata.EntryPoint("small", "my_losses:Small", group)]

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
    assert available()["small"] == "my_losses:Small"
    assert find("small").name == "small"
    assert "small" in build(["small=2"], SHAPES)


def test_the_description_has_a_line_for_every_named_loss() -> None:
    head, *lines = describe().splitlines()
    assert head.split() == ["loss", "scale", "reads", "arXiv"]
    assert [line.split()[0] for line in lines] == sorted(available())
    assert all(re.search(r" \d{4}\.\d{5} ", line) for line in lines)
    (taco,) = (line for line in lines if line.startswith("taco "))
    assert taco.split()[1:4] == [f"{find('taco').Options().scale:g}", "embed", "2306.13229"]


def test_measured_costs_stand_beside_the_losses() -> None:
    head, *lines = describe({"kl": 0.012}).splitlines()
    assert "cost" in head.split()
    assert [line.split()[0] for line in lines if "%" in line] == ["kl"]
    assert "1.2 %" in lines[sorted(available()).index("kl")]


@pytest.mark.parametrize("name", ["keys", "items", "forward", "training", "pop"])
def test_a_name_that_a_dictionary_of_modules_has_itself_is_refused(workdir: Path, name: str) -> None:
    (workdir / "my_losses.py").write_text(OWN_LOSS.replace('name = "small"', f'name = "{name}"'))
    with pytest.raises(UserError, match=f"is named '{name}', as a part of torch's ModuleDict; rename it"):
        build(["my_losses:Small"], SHAPES)


def test_a_tap_that_does_not_exist_is_refused_before_anything_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(find("kl"), "needs", frozenset({"posterier"}))
    with pytest.raises(UserError, match=r"posterier.*did you mean 'posterior'"):
        build(["kl"], SHAPES)
