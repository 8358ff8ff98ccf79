"""What figures show is what their data says, gaps and missing parts included."""

import csv
import io
import math
from pathlib import Path

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from experiments.report.figures import (
    BC_COLOUR,
    IMAGINED_COLOUR,
    MOST_POINTS,
    Point,
    SeedCurve,
    TaskCurve,
    comparison,
    open_loop_curves,
    panels,
    picture_of,
    save_figure,
    success_curves,
)
from experiments.report.statistics import Estimate, wilson

BC = Estimate(0.3, wilson(15, 50))
PPO = Estimate(0.8, wilson(40, 50))


def _seed(seed: int, last: int, height: float) -> SeedCurve:
    imagined = [Point(i, height * i / last) for i in range(last + 1)]
    real = [Point(i, 0.5, wilson(10, 20)) for i in range(0, last + 1, 5)]
    return SeedCurve(seed, imagined, real, stop=last - 1, reason="imagined success")


def _line(axis: Axes, colour: str) -> list[tuple[float, float]]:
    """The thickest line of a colour."""
    lines = sorted((line for line in axis.lines if line.get_color() == colour), key=lambda line: line.get_linewidth())
    return [(float(x), float(y)) for x, y in lines[-1].get_xydata()]


def test_the_success_panel_draws_imagined_success_in_per_cent_over_the_cloned_policy() -> None:
    axis = success_curves([TaskCurve("open_drawer", [_seed(0, 10, 0.9)], BC, PPO)]).figure.axes[0]
    assert _line(axis, IMAGINED_COLOUR)[-1] == (10, pytest.approx(90))
    assert {y for _, y in _line(axis, BC_COLOUR)} == {30}
    assert axis.get_title(loc="left") == "open drawer"
    assert any("kept: 9 (imagined success)" in text.get_text() for text in axis.texts)


def test_the_mean_over_seeds_ends_where_the_first_seed_stops() -> None:
    curve = TaskCurve("open_drawer", [_seed(0, 10, 0.5), _seed(1, 20, 1.0)])
    axis = success_curves([curve]).figure.axes[0]
    assert _line(axis, IMAGINED_COLOUR)[-1] == (10, pytest.approx(50))


def test_a_policy_that_learned_after_its_last_dream_is_still_in_the_picture() -> None:
    seed = SeedCurve(0, [Point(0, 0.2), Point(1, 0.4)], stop=2, reason="all iterations done")
    axis = success_curves([TaskCurve("open_drawer", [seed])]).figure.axes[0]
    assert axis.get_xlim()[1] > 2


def test_every_number_of_a_success_figure_is_in_its_rows() -> None:
    rows = success_curves([TaskCurve("a", [_seed(0, 10, 0.9)], BC, PPO), TaskCurve("b", [])]).data
    real = [row for row in rows if row["kind"] == "real"]
    assert [row["iteration"] for row in real] == [0, 5, 10]
    assert (real[0]["low"], real[0]["high"]) == wilson(10, 20)
    assert [row["rate"] for row in rows if row["kind"] in ("bc", "ppo")] == [0.3, 0.8]
    assert [row["iteration"] for row in rows if row["kind"] == "kept"] == [9]


def test_the_legend_names_only_what_is_drawn() -> None:
    def legend(curve: TaskCurve) -> set[str]:
        return {text.get_text() for box in success_curves([curve]).figure.legends for text in box.get_texts()}

    assert legend(TaskCurve("a", [SeedCurve(0, [Point(0, 0.1)])])) == {"PPO, imagined"}
    assert legend(TaskCurve("a", [], BC)) == {"BC, real"}
    assert "policy kept" in legend(TaskCurve("a", [_seed(0, 5, 1.0)]))


@pytest.mark.parametrize("count", [1, 3, 4, 8])
def test_there_is_one_panel_for_every_task(count: int) -> None:
    figure = success_curves([TaskCurve(f"task_{i}", [_seed(0, 3, 1.0)], BC, PPO) for i in range(count)]).figure
    assert [axis.get_title(loc="left") for axis in figure.axes] == [f"task {i}" for i in range(count)]


SEEDS = ["calm: seed 0", "calm: seed 1", "distracted: seed 0", "distracted: seed 1"]


def test_long_series_are_averaged_not_dropped() -> None:
    line = [Point(i, float(i % 2)) for i in range(20 * MOST_POINTS)]
    plot = panels({"kl": {"seed 0": line}}, x_label="step")
    drawn = plot.figure.axes[0].lines[0].get_ydata()
    assert len(drawn) == MOST_POINTS
    assert all(y == 0.5 for y in drawn)
    assert len(plot.data) == len(line)


def test_losses_that_span_decades_get_a_logarithmic_axis_and_others_do_not() -> None:
    wide, narrow = ([Point(i, y) for i, y in enumerate(ys)] for ys in ([1000.0, 1.0], [2.0, 1.0]))
    axes = panels({"wide": {"s": wide}, "narrow": {"s": narrow}}, x_label="step").figure.axes
    assert [axis.get_yscale() for axis in axes] == ["log", "linear"]


def test_lines_of_a_family_share_a_colour_and_a_mean_which_a_legend_names() -> None:
    lines = {name: [Point(0, y), Point(1, y)] for y, name in enumerate(SEEDS)}
    figure = panels({"kl": lines}, x_label="step", family=lambda line: line.partition(":")[0]).figure
    drawn = {str(line.get_color()): list(line.get_ydata()) for line in figure.axes[0].lines if line.get_linewidth() > 1}
    assert list(drawn.values()) == [[0.5, 0.5], [2.5, 2.5]]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["calm", "distracted"]


def test_a_missing_value_leaves_a_gap() -> None:
    plot = open_loop_curves({"rgb_static": [30.0, None, 20.0]})  # type: ignore[list-item]
    y = plot.figure.axes[0].lines[0].get_ydata()
    assert math.isnan(y[1])
    assert (y[0], y[2]) == (30, 20)


def test_open_loop_counts_from_the_first_imagined_frame_and_adds_a_panel_for_ssim() -> None:
    plot = open_loop_curves({"rgb_static": [30.0, 20.0]}, {"rgb_static": [0.9, 0.8]})
    assert [axis.get_title(loc="left") for axis in plot.figure.axes] == ["PSNR (dB)", "SSIM"]
    assert list(plot.figure.axes[0].lines[0].get_xdata()) == [1, 2]


def test_the_comparison_has_a_row_a_task_and_one_for_the_average() -> None:
    plot = comparison({"open_drawer": (BC, PPO)}, (BC, PPO))
    assert [tick.get_text() for tick in plot.figure.axes[0].get_yticklabels()] == ["open drawer", "average"]
    assert [(row["task"], row["policy"], row["rate"]) for row in plot.data][:2] == [
        ("open_drawer", "bc", 0.3),
        ("open_drawer", "ppo", 0.8),
    ]


def test_a_saved_figure_has_its_numbers_beside_it(tmp_path: Path) -> None:
    plot = comparison({"open_drawer": (BC, PPO)})
    picture = save_figure(plot.figure, tmp_path / "curves" / "comparison.png", plot.data)
    assert (tmp_path / "curves" / "comparison.png").read_bytes() == picture
    with open(tmp_path / "curves" / "comparison.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["rate"]) for row in rows] == [0.3, 0.8]
    assert sorted(p.name for p in (tmp_path / "curves").iterdir()) == ["comparison.csv", "comparison.png"]


def test_a_png_is_wide_enough_to_be_read_at_page_width() -> None:
    with Image.open(io.BytesIO(picture_of(Figure(figsize=(9.6, 1))))) as image:
        assert image.format == "PNG"
        assert image.width >= 1400
