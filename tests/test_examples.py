"""Programs of the documents do what the documents say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from worldaction.play.readers.source import open_source

EXAMPLES = Path(__file__).parent.parent / "docs/examples"


def test_a_set_that_minari_collects_is_read_with_its_pictures_and_outcomes(tmp_path: Path) -> None:
    for package in ("minari", "imageio", "h5py"):
        pytest.importorskip(package, reason="Minari is installed in an environment of its own, see docs/data.md")
    result = subprocess.run(
        [sys.executable, str(EXAMPLES / "reacher_set.py"), "6"],
        env={"MUJOCO_GL": "egl"} | os.environ | {"MINARI_DATASETS_PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    source = open_source(str(tmp_path / "reacher/hasty-v0"))
    assert len(source.episodes) == 6
    ends = [segment.success for episode in source.episodes for segment in episode.segments]
    assert f"{sum(map(bool, ends))} of 6 attempts succeeded" in result.stdout
    assert set(ends) == {True, False}
    assert source.layout.cameras
