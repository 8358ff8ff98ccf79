"""What a measurement was made on."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from typing import Any

import torch

from experiments.study.machine import commit, processor
from worldaction.io.artefact import versions


def machine(device: str) -> dict[str, Any]:
    """Date, commit, processor and versions; with "cuda", the GPU too."""
    values: dict[str, Any] = {
        "when": time.strftime("%Y-%m-%d %H:%M %z"),
        "commit": commit(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "versions": versions(),
    }
    if device == "cuda":
        about = torch.cuda.get_device_properties(0)
        values |= {
            "gpu": about.name,
            "memory_gb": round(about.total_memory / 1e9),
            "capability": f"sm_{about.major}{about.minor}",
            "multiprocessors": about.multi_processor_count,
            "cuda": torch.version.cuda,
            "driver": _driver(),
            "nvcc": shutil.which("nvcc") is not None,
        }
    return values


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return found.stdout.strip() or "unknown"
