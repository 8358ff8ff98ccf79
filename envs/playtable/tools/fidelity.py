"""Sets the embedded table beside CALVIN: what was measured in both, and what recorded commands lead to.

worldaction table fidelity --write docs/playtable.md             both tables, 10 seconds
worldaction table fidelity --replay FILE ...                     what recorded commands lead to here
worldaction table fidelity --record path/to/task_D_D --out FILE  a recording of a CALVIN set's annotated windows
worldaction table fidelity --calvin                              CALVIN's numbers anew, from your installation
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

import envs.playtable
from envs.calvin.env import CalvinEnv
from envs.playtable.env import PlayTableEnv
from envs.playtable.recover import from_calvin
from envs.playtable.tools.measure import MILLIMETRES, Values, measure
from envs.playtable.tools.properties import properties
from envs.playtable.tools.replay import CARRIED, PARTS, Outcome, load_recording, replay, save_recording
from worldaction.errors import UserError
from worldaction.io.atomic import replacing
from worldaction.io.sealed_json import read_json

FACTS: Final = Path(envs.playtable.__file__).parent / "calvin_facts.json"
"""CALVIN's numbers: `given` was read off its files or measured with forces from outside, `measured` by `--calvin`."""
RECORDINGS: Final = tuple(CARRIED / f"{name}.npz" for name in ("calvin_D", "calvin_sample_64", "calvin_sample_native"))
"""Recordings that come with the library: the first by `envs.calvin.record`, the others by `--record`."""
LONG: Final = 10_000
MARKS: Final = "<!-- {name}: written by worldaction table fidelity -->", "<!-- end of {name} -->"


class Row(NamedTuple):
    """A quantity in both simulators."""

    quantity: str
    calvin: list[float]
    ours: list[float]

    @property
    def difference(self) -> float:
        """The largest of the row."""
        return float(np.abs(np.subtract(self.calvin, self.ours)).max())


def fidelity(facts: Mapping[str, Any]) -> list[Row]:
    """Every quantity that is known of CALVIN, measured in the embedded table.

    Args:
        facts: what `calvin_facts.json` holds.

    Raises:
        UserError: a quantity is known of one simulator only.
    """
    env = PlayTableEnv(cameras=False, max_steps=LONG)
    here = {**measure(env), **properties(env, facts["cameras"])}
    there: Values = {**facts["measured"], **facts["given"]}
    for name in here.keys() ^ there.keys():
        raise UserError(f"{name!r} is known of one simulator only; measure CALVIN with --calvin, or edit {FACTS.name}")
    return [Row(name, there[name], values) for name, values in here.items()]


def fidelity_table(rows: Sequence[Row]) -> str:
    """The rows in Markdown."""
    head = ["| quantity | CALVIN | here | difference |", "|---|---|---|---|"]
    return "\n".join(
        head + [f"| {row.quantity} | {_numbers(row.calvin)} | {_numbers(row.ours)} | {_number(row.difference)} |"
                for row in rows]
    )  # fmt: skip


def _numbers(values: Sequence[float]) -> str:
    return " ".join(_number(value) for value in values)


def _number(value: float) -> str:
    if abs(value) < 1e-9:
        return "0"
    if abs(value) < 1e-3:
        return f"{value:.0e}"
    text = f"{value:.4g}" if abs(value) >= 1 else f"{value:.3f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def replay_outcomes(paths: Sequence[Path] = RECORDINGS) -> dict[str, list[Outcome]]:
    """What becomes of every window of some recordings, by the name of the file.

    Raises:
        UserError: a file is no recording.
    """
    outcomes = {}
    for path in paths:
        recording = load_recording(path)
        env = PlayTableEnv(cameras=False, max_steps=LONG, scene=recording.scene)
        outcomes[path.stem] = [replay(env, recording, window) for window in recording.windows]
    return outcomes


def replay_table(outcomes: Mapping[str, Sequence[Outcome]]) -> str:
    """One row for every recording and task, and a sum for each recording, in Markdown."""
    lines = [
        "| recording | task | done | TCP off, median, most (mm) | slider, drawer, button, switch off, most (mm) "
        "| blocks off, most (mm) |",
        "|---|---|---|---|---|---|",
    ]
    for name, all_of_them in outcomes.items():
        for task in sorted({outcome.task for outcome in all_of_them}):
            lines += [_replay_row(name, task, [outcome for outcome in all_of_them if outcome.task == task])]
        lines.append(_replay_row(f"**{name}**", "**all**", all_of_them))
    return "\n".join(lines)


def _replay_row(name: str, task: str, outcomes: Sequence[Outcome]) -> str:
    tcp = MILLIMETRES * np.array([outcome.tcp for outcome in outcomes])
    parts = [MILLIMETRES * max(outcome.parts[part] for outcome in outcomes) for part in PARTS]
    done = sum(outcome.success for outcome in outcomes)
    return (
        f"| {name} | {task} | {done} of {len(outcomes)} | {np.median(tcp):.1f}, {tcp.max():.1f} "
        f"| {', '.join(f'{part:.1f}' for part in parts)} "
        f"| {MILLIMETRES * max(outcome.blocks for outcome in outcomes):.1f} |"
    )


def put(page: str, tables: Mapping[str, str]) -> str:
    """A page with its tables renewed: what stands between the marks of their names. The rest stays as it is.

    Raises:
        UserError: a mark is missing.
    """
    for name, table in tables.items():
        begin, end = (mark.format(name=name) for mark in MARKS)
        if page.count(begin) != 1 or page.count(end) != 1 or page.index(begin) > page.index(end):
            raise UserError(f"the page needs the marks {begin!r} and {end!r}, once each; put them where {name} belongs")
        before, after = page.split(begin)[0], page.split(end)[1]
        page = f"{before}{begin}\n{table}\n{end}{after}"
    return page


def measure_calvin() -> None:
    """Renews the measured part of the data file with your installation of CALVIN.

    Raises:
        UserError: there is no simulator; see docs/calvin.md.
    """
    with closing(CalvinEnv(cameras=False, max_steps=LONG)) as env:
        values = {name: [float(f"{value:.6g}") for value in row] for name, row in measure(env).items()}
        about = f"calvin_env {env.about['calvin_env'][:10]}, pybullet {env.about['pybullet']}, scene D"
    facts = {**read_json(FACTS), "about": about, "measured": values}
    _write(FACTS, _one_row_a_line(facts) + "\n")


def _one_row_a_line(value: Any, depth: int = 0) -> str:
    """JSON that is read like a table."""
    if not isinstance(value, dict):
        return json.dumps(value)
    space = "  " * depth
    rows = [f"{space}  {json.dumps(key)}: {_one_row_a_line(part, depth + 1)}" for key, part in value.items()]
    return "{\n" + ",\n".join(rows) + f"\n{space}}}"


def _write(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints both tables, or does what is asked."""
    parser = argparse.ArgumentParser(
        prog="worldaction table fidelity", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", type=Path, help="renew both tables in this page")
    parser.add_argument("--replay", type=Path, nargs="+", help="replay these recordings, and nothing else")
    parser.add_argument("--record", type=Path, help="a CALVIN set, whose annotated windows become a recording")
    parser.add_argument("--out", type=Path, help="the .npz that --record writes")
    parser.add_argument("--calvin", action="store_true", help=f"measure the real simulator and renew {FACTS.name}")
    options = parser.parse_args(arguments)
    if (options.record is None) != (options.out is None):
        parser.error("--record and --out go together")
    try:
        if options.record is not None:
            save_recording(options.out, from_calvin(options.record))
        elif options.replay:
            print(replay_table(replay_outcomes(options.replay)))
        elif options.calvin:
            measure_calvin()
        else:
            _tables(options.write)
    except UserError as error:
        parser.exit(2, f"error: {error}\n")


def _tables(page: Path | None) -> None:
    outcomes = replay_outcomes()
    tables = {"fidelity": fidelity_table(fidelity(read_json(FACTS))), "replay": replay_table(outcomes)}
    if page is None:
        print("\n\n".join(tables.values()))
    elif not page.is_file():
        raise UserError(f"there is no page {page}; write it first, with the marks of {' and '.join(tables)}")
    else:
        _write(page, put(page.read_text(encoding="utf-8"), tables))
