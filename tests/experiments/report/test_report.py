"""The page of a run, from synthetic run folders: whole runs, world models alone, interrupted runs, nothing."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.report.pages.markdown import markdown
from experiments.report.pages.run_page import console_table, verdict, write_report
from experiments.report.statistics import paired_difference, success_rate
from experiments.report.verdict import warnings
from experiments.report.video import Rollout, open_loop_video, rollout_video
from worldaction.errors import UserError
from worldaction.io.atomic import write_json

EPISODES = 50
# task: how often BC and PPO succeed in the simulator, and in dreams
TASKS = {"open_drawer": (32, 38, 0.66, 0.93), "move_slider_left": (12, 43, 0.20, 0.90)}


def _summary(tasks: dict[str, tuple[int, int, float, float]] = TASKS, seeds: int = 1) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    for name, (bc, ppo, dreamed_bc, dreamed_ppo) in tasks.items():
        outcomes = {"bc": np.arange(EPISODES) < bc, "ppo": np.arange(EPISODES) < ppo}
        rates = {policy: success_rate(o) for policy, o in outcomes.items()}
        entries[name] = {
            "n": EPISODES,
            **{
                p: {"successes": int(outcomes[p].sum()), "rate": r.value, "interval": r.interval}
                for p, r in rates.items()
            },
            "difference": paired_difference(outcomes["ppo"], outcomes["bc"])._asdict(),
            "imagined": {"bc": dreamed_bc, "ppo": dreamed_ppo},
            "per_seed": [
                {"seed": s, "bc": bc / EPISODES, "ppo": ppo / EPISODES, "imagined_bc": dreamed_bc}
                | {"imagined_ppo": dreamed_ppo, "iterations": 19, "kept": 18, "stop_reason": "max_imagined"}
                for s in range(seeds)
            ],
        }
    probes = [{"seen": {"r2_drawer": 0.98}, "imagined": {"r2_drawer": imagined}} for imagined in (0.7, 0.8)]
    psnr = {"rgb_static": list(np.linspace(29, 19, 40)), "rgb_gripper": list(np.linspace(26, 15, 40))}
    return {
        "tasks": entries,
        "world_model": {"psnr": psnr, "per_seed": [{"probes": p} for p in probes]},
        "seeds": list(range(seeds)),
        "settings": "0123456789ab",
        "renderer": "egl",
        "commit": "abcdef",
        "seconds": 640.0,
        "cpu_seconds": 1180.0,
        "preset": "quick",
    }


def _write_metrics(folder: Path, seeds: int) -> None:
    rng = np.random.default_rng(0)
    lines = []
    for seed in range(seeds):
        for step in range(25, 3001, 25):
            losses = {
                f"loss/{n}": s * (np.exp(-step / 600) + 0.1 + 0.01 * rng.normal())
                for n, s in (("kl", 9), ("reconstruction", 300))
            }
            lines.append({"prefix": f"seed{seed}/world_model", "step": step, "time": 0.0, **losses})
        for task, (bc, ppo, _, dreamed) in TASKS.items():
            for learned in range(19):
                grown = 1 - np.exp(-learned / 6)
                prefix, now = f"seed{seed}/{task}", {"time": 0.0}
                if learned % 6 == 0:
                    real = rng.binomial(20, bc / 50 + (ppo - bc) / 50 * grown) / 20
                    lines.append({"prefix": prefix, "step": learned, **now, "real/success": real})
                values = {"imagined/success": dreamed * grown + bc / 50 * (1 - grown), "ppo/divergence": 0.02 * learned}
                lines.append({"prefix": prefix, "step": learned + 1, **now, **values})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def _write_run(folder: Path, *, summary: dict[str, Any] | None, seeds: int = 1, films: bool = True) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"preset": "quick", "evaluation": {"curve_episodes": 20}}))
    (folder / "env.json").write_text(json.dumps({"versions": {"torch": "2.13.0"}, "device": "cpu"}))
    if summary is not None:
        (folder / "summary.json").write_text(json.dumps(summary))
        (folder / "evaluation").mkdir()
        outcomes = {"bc": {"success": [1, 0, 1]}, "ppo": {"success": [1, 1, 1]}, "seed": 0}
        (folder / "evaluation" / "open_drawer-seed0.json").write_text(json.dumps(outcomes))
    _write_metrics(folder, seeds)
    if films:
        frames = np.full((6, 16, 16, 3), 90, np.uint8)
        open_loop_video(frames, frames, folder / "videos" / "open_loop-seed0-rgb_static.mp4")
        rollouts = [Rollout("BC", frames, False), Rollout("PPO", frames[:3], True)]
        rollout_video(rollouts, folder / "videos" / "open_drawer-seed0.mp4")
    return folder


class _Outline(HTMLParser):
    """Headings, sources and links of a page, and whether its elements are closed in order."""

    VOID = ("meta", "img", "br")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.headings: list[str] = []
        self.sources: list[str] = []
        self.links: list[str] = []
        self.kinds: dict[str, int] = {}
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.kinds[tag] = self.kinds.get(tag, 0) + 1
        self.sources += [str(values["src"])] if "src" in values else []
        self.links += [str(values["href"])] if "href" in values else []
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.kinds[tag] = self.kinds.get(tag, 0) + 1

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("h1", "h2", "h3"):
            self.headings.append(data)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = _write_run(tmp_path_factory.mktemp("runs") / "quick", summary=_summary(seeds=2), seeds=2)
    write_report(folder)
    return folder


def test_the_page_of_a_whole_run_has_every_part_and_closes_its_elements(whole: Path) -> None:
    outline = _Outline((whole / "report.html").read_text())
    assert outline.open == []
    assert outline.headings[0].startswith("PPO in imagination raised success in the simulator: from 44 % to 81 %")
    for part in (
        "BC against PPO in imagination",
        "Success while PPO trains",
        "Every episode",
        "Rollouts",
        "World model",
        "Losses",
    ):
        assert part in outline.headings
    assert outline.kinds["video"] == 2
    assert outline.kinds["rect"] == 6


def test_probes_are_averaged_over_seeds(whole: Path) -> None:
    text = re.sub(r"<[^>]+>", " ", (whole / "report.html").read_text())
    assert " ".join(text[text.index("r2 drawer") :].split()).startswith("r2 drawer 0.98 0.75")


def test_the_page_needs_no_network_and_names_no_place_outside_its_folder(whole: Path) -> None:
    html = (whole / "report.html").read_text()
    outline = _Outline(html)
    assert all(source.startswith(("data:image/png;base64,", "data:video/mp4;base64,")) for source in outline.sources)
    assert not re.search(r"https?://", html)
    assert str(whole.parent) not in html
    for link in outline.links:
        assert (whole / link).exists(), link


def test_the_table_shows_episodes_rates_intervals_differences_and_gaps(whole: Path) -> None:
    text = re.sub(r"<[^>]+>", " ", (whole / "report.html").read_text())
    row = " ".join(text[text.index("move slider left") :].split())
    low, high = paired_difference(np.arange(50) < 43, np.arange(50) < 12).interval
    difference = f"+62 [{100 * low:+.0f}, {100 * high:+.0f}]"
    assert row.startswith(f"move slider left 50 24 [14, 37] 86 [74, 93] {difference} 20, 90 +4")


def test_every_figure_has_its_numbers_beside_it(whole: Path) -> None:
    names = {path.stem for path in (whole / "curves").glob("*.png")}
    assert names == {path.stem for path in (whole / "curves").glob("*.csv")}
    assert names == {"comparison", "success", "open_loop", "loss", "ppo_open_drawer", "ppo_move_slider_left"}


def _success_rows(run: Path) -> list[dict[str, str]]:
    """The numbers of the figure of success while PPO trains."""
    header, *lines = (run / "curves" / "success.csv").read_text().splitlines()
    return [dict(zip(header.split(","), line.split(","), strict=True)) for line in lines]


def test_imagined_and_real_success_of_one_policy_stand_above_each_other(whole: Path) -> None:
    rows = [row for row in _success_rows(whole) if (row["task"], row["seed"]) == ("open_drawer", "0")]
    places = {kind: [float(row["iteration"]) for row in rows if row["kind"] == kind] for kind in ("imagined", "real")}
    assert places == {"imagined": list(range(19)), "real": [0, 6, 12, 18]}
    assert [row["iteration"] for row in rows if row["kind"] == "kept"] == ["18"]
    # what the cloned policy dreamed, in the first iteration
    assert next(row["rate"] for row in rows if row["kind"] == "imagined") == str(32 / 50)


@pytest.mark.parametrize(
    ("reason", "kept"), [("all iterations done", 19), ("max_imagined", 18), ("min_time", 17), ("max_divergence", 17)]
)
def test_a_run_that_does_not_say_what_it_kept_kept_what_its_rule_says(tmp_path: Path, reason: str, kept: int) -> None:
    summary = _summary()
    for task in summary["tasks"].values():
        task["per_seed"][0] |= {"kept": None, "stop_reason": reason}
    folder = _write_run(tmp_path / "run", summary=summary, films=False)
    page = re.sub(r"<[^>]+>", " ", write_report(folder).read_text())
    assert {row["iteration"] for row in _success_rows(folder) if row["kind"] == "kept"} == {str(kept)}
    assert f"19 {kept} {reason}" in " ".join(page.split())


def test_real_points_of_the_curve_carry_the_interval_of_their_episodes(whole: Path) -> None:
    real = [row for row in _success_rows(whole) if row["kind"] == "real"]
    assert {row["seed"] for row in real} == {"0", "1"}
    assert all(float(row["low"]) <= float(row["rate"]) <= float(row["high"]) for row in real)


def test_large_films_stay_beside_the_page(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.report.pages.page.LARGEST_INSIDE", 10)
    sources = _Outline(write_report(whole).read_text()).sources
    assert "videos/open_drawer-seed0.mp4" in sources
    monkeypatch.undo()
    write_report(whole)


def test_a_run_of_the_world_model_alone_says_so_and_leaves_policies_out(tmp_path: Path) -> None:
    summary = {key: value for key, value in _summary().items() if key != "tasks"}
    folder = _write_run(tmp_path / "run", summary=summary, films=False)
    (folder / "metrics.jsonl").write_text("")
    outline = _Outline(write_report(folder).read_text())
    assert outline.headings[0].startswith("World model only, no policy was evaluated. Open loop: rgb_static 29.0 dB")
    assert "BC against PPO in imagination" not in outline.headings
    assert console_table(summary) == verdict(summary)


def test_an_interrupted_run_shows_how_far_it_came(tmp_path: Path) -> None:
    outline = _Outline(write_report(_write_run(tmp_path / "run", summary=None, films=False)).read_text())
    assert outline.headings[0].startswith("No summary yet")
    assert "Success while PPO trains" in outline.headings


def test_names_from_files_cannot_become_markup(tmp_path: Path) -> None:
    summary = _summary({"<script>x</script>": (10, 40, 0.2, 0.8)})
    html = write_report(_write_run(tmp_path / "run", summary=summary, films=False)).read_text()
    assert "<script>" not in html


def test_a_folder_without_a_run_and_a_damaged_file_are_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no run"):
        write_report(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="damaged") as error:
        write_report(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("bc", "ppo", "said"),
    [(10, 40, "raised success"), (40, 10, "lowered success"), (24, 25, "shows no clear effect on success")],
)
def test_the_verdict_says_no_more_than_the_interval_allows(bc: int, ppo: int, said: str) -> None:
    sentence = verdict(_summary({"open_drawer": (bc, ppo, 0.5, 0.5)}))
    assert f"PPO in imagination {said} in the simulator" in sentence
    assert sentence.endswith("open drawer, 50 episodes each, 1 seed.")


def test_the_verdict_counts_the_seeds_that_were_evaluated() -> None:
    summary = _summary(seeds=2)
    assert verdict(summary).endswith("average of 2 tasks, 50 episodes each, 2 seeds.")
    for task in summary["tasks"].values():
        task["n"], task["per_seed"] = 25, task["per_seed"][:1]
    assert verdict(summary).endswith("average of 2 tasks, 25 episodes each, 1 seed.")
    summary["tasks"]["open_drawer"] = _summary(seeds=2)["tasks"]["open_drawer"]
    assert verdict(summary).endswith("average of 2 tasks, 25 to 50 episodes each, 1 to 2 seeds.")


def test_the_reader_is_warned_of_harm_exploitation_and_small_numbers() -> None:
    summary = _summary({"open_drawer": (40, 12, 0.7, 0.9)})
    summary["tasks"]["open_drawer"]["n"] = 4
    text = " ".join(warnings(summary))
    assert "Fewer than 20 episodes" in text
    assert "worse on open drawer" in text
    assert "open drawer (+66)" in text
    assert warnings(_summary({"open_drawer": (30, 40, 0.6, 0.8)})) == []


def test_the_closing_table_lines_up_and_ends_with_the_verdict() -> None:
    lines = console_table(_summary()).splitlines()
    assert [line.split()[0] for line in (lines[0], *lines[2:5])] == [
        "task",
        "open_drawer",
        "move_slider_left",
        "average",
    ]
    starts = {line.index("[", line.index("%")) for line in lines[2:5]}
    assert len(starts) == 1
    assert "PPO in imagination raised success" in lines[6]
    assert max(map(len, lines)) <= 120


# The improved policy is called by its update --------------------------------------------------------------------------


def _renamed(value: Any, name: str) -> Any:
    """A summary as a run has it whose policy was improved by another update."""
    if isinstance(value, dict):
        return {key.replace("ppo", name): _renamed(item, name) for key, item in value.items()}
    return [_renamed(item, name) for item in value] if isinstance(value, list) else value


@pytest.fixture(scope="module")
def grpo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    summary = _renamed(_summary(), "grpo") | {"improved": "grpo"}
    for task in summary["tasks"].values():
        task["per_seed"][0]["difference"] = task["difference"]
    folder = _write_run(tmp_path_factory.mktemp("runs") / "grpo", summary=summary, films=False)
    for path in (folder / "metrics.jsonl", folder / "evaluation" / "open_drawer-seed0.json"):
        path.write_text(path.read_text().replace("ppo", "grpo"))
    write_report(folder)
    return folder


def test_no_part_of_a_report_says_ppo_of_a_policy_that_another_update_improved(grpo: Path) -> None:
    summary = json.loads((grpo / "summary.json").read_text())
    write_json(grpo / "env.json", {"started": "2026-11-21", "device": "cpu", "cores": 2, "processor": "some"})
    page = re.sub(r'src="[^"]+"', "", (grpo / "report.html").read_text())
    for said in (page, console_table(summary), verdict(summary), *warnings(summary), markdown(grpo)):
        assert "ppo" not in said.lower().replace("grpo", "")
    for said in (page, console_table(summary), verdict(summary), markdown(grpo)):
        assert "GRPO" in said
    rows = (grpo / "curves" / "comparison.csv").read_text()
    assert "open_drawer,grpo,0.76" in rows
    assert {path.stem for path in (grpo / "curves").glob("grpo_*.png")} == {"grpo_open_drawer", "grpo_move_slider_left"}


def test_an_interrupted_run_names_the_update_that_it_has_recorded(tmp_path: Path) -> None:
    folder = _write_run(tmp_path / "run", summary=None, films=False)
    metrics = folder / "metrics.jsonl"
    metrics.write_text(metrics.read_text().replace("ppo/", "grpo/"))
    assert "Success while GRPO trains" in _Outline(write_report(folder).read_text()).headings


def test_a_summary_that_does_not_name_its_update_was_improved_by_ppo() -> None:
    named = _renamed(_summary(), "ppo") | {"improved": "ppo"}
    assert console_table(_summary()) == console_table(named)


# For readers ----------------------------------------------------------------------------------------------------------


def test_films_have_a_poster_wide_pictures_scroll_and_dark_mode_is_followed(whole: Path) -> None:
    html = (whole / "report.html").read_text()
    posters = re.findall(r'<video [^>]*poster="([^"]+)"', html)
    assert len(posters) == html.count("<video")
    assert all(poster.startswith("data:image/jpeg;base64,") for poster in posters)
    assert html.count('<figure><div class="scroll"><img') == len(list((whole / "curves").glob("*.png")))
    assert "prefers-color-scheme: dark" in html


def test_why_an_update_ended_is_said_in_words(tmp_path: Path) -> None:
    folder = _write_run(tmp_path / "run", summary=_summary(), films=False)
    text = write_report(folder).read_text()
    assert "max_imagined: nearly all dreams succeed" in text


def test_a_probe_that_is_worse_than_the_mean_is_not_told_to_the_last_digit(tmp_path: Path) -> None:
    summary = _summary()
    for seed in summary["world_model"]["per_seed"]:
        seed["probes"]["imagined"]["r2_drawer"] = -1528377.5
    text = re.sub(r"<[^>]+>", " ", write_report(_write_run(tmp_path / "r", summary=summary, films=False)).read_text())
    assert " ".join(text[text.index("r2 drawer") :].split()).startswith("r2 drawer 0.98 below 0")
