"""Under which sampler the policies of a run acted, and how the clone's was chosen.

The summary is that of `experiments/report/pages/run_page.py`, as plain JSON values.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from experiments.report.outcomes import STOCHASTIC
from experiments.report.table import label

Json = Mapping[str, Any]
_DIFFUSION = {STOCHASTIC: "stochastic, DDPM", "deterministic": "deterministic, DDIM"}
"""What the samplers of a diffusion policy are called elsewhere."""


def sampler_name(sampler: str, config: Json) -> str:
    """A sampler as it is read; with the name that the field has for it where the policy is a diffusion.

    Args:
        sampler: of a summary.
        config: the run's settings.
    """
    head = str((config.get("policy") or {}).get("name", "")).partition(",")[0]
    return _DIFFUSION.get(sampler, sampler) if head == "diffusion" else sampler


def chosen(seed: Json) -> str:
    """How the sampler of a seed's clone was chosen: "chosen 4 of 4 against 3 of 4"; empty if it was not."""
    choice = seed.get("choice")
    if not choice or len(choice) < 3:
        return ""
    count = int(choice["n"])
    own = round(choice[seed["sampler"]] * count)
    (other,) = (round(rate * count) for name, rate in choice.items() if name not in ("n", seed["sampler"]))
    return f"chosen {own} of {count} against {other} of {count}"


def which_samplers(tasks: Mapping[str, Json], improved: str, config: Json) -> str:
    """A sentence on what BC and the improved policy acted under; empty for runs that do not say so.

    Args:
        tasks: of a summary.
        improved: what it calls the improved policy.
        config: the run's settings.
    """
    seeds = [seed for task in tasks.values() for seed in task.get("per_seed", []) if seed.get("sampler")]
    if not seeds:
        return ""
    stochastic = sampler_name(STOCHASTIC, config)
    count = Counter(seed["sampler"] for seed in seeds)
    if not any(task.get("bc_other") for task in tasks.values()) and set(count) == {STOCHASTIC}:
        return f"BC and {label(improved)} both act under one sampler ({stochastic})."
    said = [f"{sampler_name(name, config)}" + (f" {n} times" if len(seeds) > 1 else "") for name, n in count.items()]
    why = f"; {chosen(seeds[0])}" if len(seeds) == 1 and chosen(seeds[0]) else ""
    return (
        f"BC acts under the sampler that did better on start states apart from these ({'; '.join(said)}{why}),"
        f" {label(improved)} under the one that it was trained with ({stochastic})."
    )
