"""The embedded table beside CALVIN: every measured quantity, and the page that lists them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from paths import ROOT

from envs.calvin.client import PYTHON
from envs.calvin.env import CalvinEnv
from envs.playtable.env import PlayTableEnv
from envs.playtable.tools.fidelity import FACTS, MARKS, Row, fidelity, fidelity_table, main, put
from envs.playtable.tools.measure import contacts, gripper, responses
from envs.tasks import TASKS
from worldaction.errors import UserError
from worldaction.io.sealed_json import read_json
from worldaction.spec import SCENE_FIELDS, SCENE_SIZE

PAGE = ROOT / "docs" / "playtable.md"
# what a row may differ by, by the first words that fit (mm, rad, kg, shares)
LIMITS = {
    "TCP at home": 1e-3,
    "share of": 0.01,
    "fastest step": 0.1,
    "lag after": 0.3,
    "distance from a target": 0.2,
    "width while": 0.5,
    "TCP along its way": 0.7,
    "the led changes": 0.7,
    "the bulb goes": 0.7,
    "button let go": 1.0,
    "bulb one step": 0,
    "drawer pulled": 0.5,
    "door pulled": 1.0,
    "lever lifted": 0.1,
    "button pushed": 0.1,
    "static camera": 1.0,
    "gripper camera": 1.0,
    "arm joints after": 1e-5,
    "": 1e-6,
}


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    """Measured once."""
    return fidelity(read_json(FACTS))


def test_every_quantity_is_as_near_to_calvins_as_the_page_says(rows: list[Row]) -> None:
    assert len(rows) > 40
    for row in rows:
        limit = next(limit for words, limit in LIMITS.items() if row.quantity.startswith(words))
        assert row.difference <= limit, row


def test_the_response_is_that_of_the_published_facts() -> None:
    """Beside the numbers that were measured by the same code, those that were found by other means."""
    values = responses(PlayTableEnv(cameras=False, max_steps=999))
    mean = np.mean([value for name, value in values.items() if "20 mm" in name], 0)
    np.testing.assert_allclose(mean, [0.49, 0.76, 0.88, 0.94, 0.97, 0.99], atol=0.015)
    widths = gripper(PlayTableEnv(cameras=False, max_steps=999))
    np.testing.assert_allclose(
        widths["width while closing, first 6 steps (mm)"], [34.4, 14.8, 6.4, 2.7, 1.2, 0.5], atol=0.2
    )


def test_success_asks_for_more_than_calvins_deltas_and_not_for_as_much() -> None:
    start = np.zeros(SCENE_SIZE)
    for name, field, delta in (
        ("open_drawer", "drawer", 0.12), ("close_drawer", "drawer", -0.12),
        ("move_slider_left", "slider", 0.15), ("move_slider_right", "slider", -0.15),
    ):  # fmt: skip
        now = start.copy()
        now[SCENE_FIELDS[field]] = delta
        assert not TASKS[name].achieved(start, now)
        now[SCENE_FIELDS[field]] = np.nextafter(delta, 2 * delta)
        assert TASKS[name].achieved(start, now)


def test_the_page_holds_the_table_as_it_is_now(rows: list[Row]) -> None:
    page = PAGE.read_text(encoding="utf-8")
    for row in rows:
        assert f"\n| {row.quantity} |" in page
    assert put(page, {}) == page


def test_tables_take_the_place_of_the_old_ones_and_prose_stays(rows: list[Row]) -> None:
    begin, end = (mark.format(name="fidelity") for mark in MARKS)
    page = f"Before.\n{begin}\nold\n{end}\nAfter."
    new = put(page, {"fidelity": fidelity_table(rows[:1])})
    assert new.startswith("Before.\n")
    assert new.endswith("\nAfter.")
    assert "old" not in new
    assert rows[0].quantity in new
    assert put(new, {"fidelity": fidelity_table(rows[:1])}) == new


@pytest.mark.parametrize("page", ["no marks", MARKS[1].format(name="fidelity") + MARKS[0].format(name="fidelity")])
def test_a_page_without_its_marks_is_refused(page: str) -> None:
    with pytest.raises(UserError, match="needs the marks"):
        put(page, {"fidelity": "table"})


def test_a_quantity_that_only_one_simulator_knows_is_named() -> None:
    facts = read_json(FACTS)
    facts["given"]["weight of the lamp (kg)"] = [1.0]
    with pytest.raises(UserError, match="weight of the lamp"):
        fidelity(facts)


def test_a_missing_page_ends_the_command_with_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--write", str(tmp_path / "none.md")])
    assert "there is no page" in capsys.readouterr().err


@pytest.mark.calvin
@pytest.mark.skipif(not os.environ.get(PYTHON), reason=f"needs a CALVIN simulator: set {PYTHON}, see docs/calvin.md")
def test_the_numbers_carried_are_what_the_real_simulator_answers() -> None:
    env = CalvinEnv(cameras=False, max_steps=9999)
    facts = read_json(FACTS)["measured"]
    for values in (responses(env), gripper(env), contacts(env)):
        for name, value in values.items():
            np.testing.assert_allclose(value, facts[name], rtol=1e-3, atol=1e-3)
    env.close()
