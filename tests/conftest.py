"""One core per test process, the same on every machine: set before torch, MuJoCo or Mesa start their threads."""

import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("LP_NUM_THREADS", "1")  # Mesa's llvmpipe, which draws without a GPU
os.environ.setdefault("MPLBACKEND", "Agg")

import pytest
import torch

torch.set_num_threads(1)


def pytest_configure(config: pytest.Config) -> None:
    """A folder for what several processes of one session make once, such as `tiny_study.finished_run`."""
    # the workers of pytest-xdist inherit it
    if "PYTEST_XDIST_WORKER" not in os.environ:
        folder = tempfile.mkdtemp(prefix="worldaction_tests")
        os.environ["WORLDACTION_TESTS_SHARED"] = folder
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked gpu skip themselves where there is no GPU, so that `-m gpu` says why instead of failing."""
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs an NVIDIA GPU"))


@pytest.fixture(autouse=True)
def seeded() -> None:
    """torch's global generator starts anew in every test, which then hangs neither on its order nor on its worker."""
    torch.manual_seed(0)


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory with a module `evil`, which no loading may import."""
    (tmp_path / "evil.py").write_text("raise SystemExit('code of a file that was only to be read has run')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "evil", raising=False)


# A process started in the background ignores Ctrl-C and hands that down, and there is nothing to test then.
signal.signal(signal.SIGINT, signal.default_int_handler)
