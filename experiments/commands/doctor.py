"""What works on this machine: `worldaction doctor`."""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING

from worldaction.errors import UserError
from worldaction.installation import ROOT, hidden

if TYPE_CHECKING:
    from worldaction.kernels import Report

HELP = "what works on this machine, and what to install for the rest"


def run(chosen: argparse.Namespace) -> None:
    """Print all findings."""
    print(table())


def findings() -> Iterator[tuple[str, str, str]]:
    """Name, state and, where something is missing, the remedy."""
    import imageio_ffmpeg
    import torch

    from envs.drawing import GL_BACKENDS, PACKAGES, works
    from worldaction.io.artefact import versions
    from worldaction.kernels import implementations

    for name, version in versions().items():
        yield name, version, ""
    yield "packages", *_packages()
    yield "platform", f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores", ""
    if torch.cuda.is_available():
        yield "GPU", torch.cuda.get_device_name(), ""
    else:
        yield "GPU", "none", "not needed; install a CUDA build of torch to use one"
    yield "torch threads", str(torch.get_num_threads()), _waiting()
    for kernel in implementations():
        yield f"{kernel.op}: {kernel.name}", *_kernel(kernel)
    for name in GL_BACKENDS:
        good = works(name)
        yield f"renderer {name}", "works" if good else "missing", "" if good else f"apt-get install {PACKAGES[name]}"
    yield "renderer rays", "works", "slower than the others, and needs no library"
    yield "CALVIN simulator", *_calvin()
    yield "ffmpeg", imageio_ffmpeg.get_ffmpeg_version(), ""


def _packages() -> tuple[str, str]:
    """Where ours are, and the remedy where another of the same name hides one."""
    lines = hidden()
    return ("hidden", "; ".join(lines.values())) if lines else (str(ROOT), "")


def _kernel(kernel: Report) -> tuple[str, str]:
    """State of an implementation, and how it is had."""
    if kernel.chosen:
        return "runs", ""
    if kernel.reason is not None:
        return "missing", kernel.reason
    asked = f"{kernel.op}={kernel.name}"
    return "opt-in" if kernel.opt_in else "works", f"{kernel.opt_in}; ask for it with --kernels {asked}".lstrip("; ")


def _calvin() -> tuple[str, str]:
    """State of the user's own simulator, and the remedy."""
    from envs.calvin.client import PYTHON, Settings, Simulator

    if not os.environ.get(PYTHON):
        return "none", f"not needed; set {PYTHON} to evaluate in the real CALVIN, see docs/calvin.md"
    try:
        with closing(Simulator(Settings())) as simulator:
            about = simulator.about
    except UserError as error:
        return "broken", str(error)
    return f"works, calvin_env {about['calvin_env'][:10]}, pybullet {about['pybullet']}", ""


def _waiting() -> str:
    if os.environ.get("OMP_WAIT_POLICY", "").upper() == "PASSIVE":
        return ""
    return "set OMP_WAIT_POLICY=PASSIVE on a shared machine: spinning threads slow each other down"


def table() -> str:
    """All findings, aligned."""
    rows = list(findings())
    first, second = (max(len(row[i]) for row in rows) for i in (0, 1))
    return "\n".join(f"{a:<{first}}  {b:<{second}}  {c}".rstrip() for a, b, c in rows)
