"""Options are documented, frozen, cheap to import, and named by a hash of their values."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import subprocess
import sys

import pytest

from worldaction import config
from worldaction.config import UpdateConfig, WorldModelConfig, digest, to_dict
from worldaction.errors import UserError, unknown

CONFIGS = [
    value
    for value in vars(config).values()
    if dataclasses.is_dataclass(value) and value.__module__ == config.__name__ and value is not config.EnvConfig
]


@pytest.mark.parametrize("cls", CONFIGS)
def test_options_are_frozen_and_have_plain_defaults(cls: type) -> None:
    options = cls()
    name = dataclasses.fields(cls)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(options, name, 0)
    for value in vars(options).values():
        assert value is None or isinstance(value, bool | int | float | str | tuple)


@pytest.mark.parametrize("cls", CONFIGS)
def test_every_option_says_what_it_is(cls: type) -> None:
    (definition,) = ast.parse(inspect.getsource(cls)).body
    assert isinstance(definition, ast.ClassDef)
    body = definition.body[1:]
    assert ast.get_docstring(definition)
    for option, text in zip(body[::2], body[1::2], strict=True):
        assert isinstance(option, ast.AnnAssign)
        assert isinstance(text, ast.Expr)
        assert isinstance(text.value, ast.Constant)
        assert str(text.value.value).endswith(".")


def test_options_can_be_read_without_torch() -> None:
    script = "import sys, worldaction.config, worldaction.spec, worldaction.errors; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_to_dict_gives_what_json_gives_back() -> None:
    values = to_dict(WorldModelConfig())
    assert values["cameras"] == ["rgb_static", "rgb_gripper"]
    assert values["lr"] == 3e-4
    assert values.keys() == {field.name for field in dataclasses.fields(WorldModelConfig)}


def test_equal_settings_have_equal_digests_and_others_do_not() -> None:
    assert digest(UpdateConfig()) == digest(UpdateConfig(lr=1e-5)) == digest(to_dict(UpdateConfig()))
    assert digest(UpdateConfig()) != digest(UpdateConfig(lr=2e-5))
    assert digest(UpdateConfig(), 1) != digest(UpdateConfig(), 2)
    assert digest("a", "b") != digest("b", "a")
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})


def test_a_digest_is_the_same_tomorrow() -> None:
    # written into artefacts: if this changes, every finished stage is done again
    assert digest({"deter": 1024, "cameras": ["rgb_static"]}, 0) == "724115db0528"


def test_an_unknown_name_is_answered_with_the_nearest_or_with_all() -> None:
    error = unknown("task", "open_drawr", ["open_drawer", "close_drawer"])
    assert isinstance(error, UserError)
    assert str(error) == "unknown task 'open_drawr'; did you mean 'open_drawer'?"
    assert str(unknown("task", "xyz", ["b", "a"])) == "unknown task 'xyz'; known: a, b"
