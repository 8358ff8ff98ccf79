"""Where a study computes, and what of it belongs into a record: device, processor, commit."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

import torch

from experiments.study.settings import Study
from worldaction.errors import UserError
from worldaction.io.artefact import versions


def device(study: Study) -> torch.device:
    """Where to compute.

    Raises:
        UserError: a GPU is asked for and there is none.
    """
    if study.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: no CUDA GPU is available to torch; use --device cpu or auto")
    if study.device == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda")


def device_name(study: Study) -> str:
    """The device in words."""
    chosen = device(study)
    return torch.cuda.get_device_name(chosen) if chosen.type == "cuda" else "cpu"


def processor() -> str:
    """The processor's name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def commit() -> str:
    """The commit of the sources, with a plus if they were changed; empty outside a checkout."""
    try:
        here = Path(__file__).resolve().parent
        name = subprocess.run(["git", "rev-parse", "--short=10", "HEAD"], cwd=here, capture_output=True, text=True)
        dirty = subprocess.run(["git", "status", "--porcelain"], cwd=here, capture_output=True, text=True)
    except OSError:
        return ""
    return name.stdout.strip() + ("+" if dirty.stdout.strip() else "") if name.returncode == 0 else ""


def about(study: Study) -> dict[str, Any]:
    """What a run's env.json says."""
    return {
        "versions": versions(),
        "commit": commit(),
        "platform": platform.platform(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "device": device_name(study),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
