"""Compiles kernels ahead of time, without a GPU: worldaction build-kernels --arch sm_80 sm_90 sm_100."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from worldaction.errors import UserError
from worldaction.kernels.cuda.compile import cache_folder, cubin
from worldaction.kernels.cuda.source import Source, source
from worldaction.kernels.denoise.cuda import sources as denoise_sources
from worldaction.kernels.dream.cuda import sources as dream_sources
from worldaction.kernels.rollout.cuda import sources as rollout_sources
from worldaction.kernels.scan.cuda import sources as scan_sources

ARCHS = {"sm_80": (108, 166_912), "sm_90": (132, 232_448), "sm_100": (148, 232_448)}
"""Multiprocessors, and bytes of shared memory of a block: how kernels are cut, on A100, H100 and B200."""
MODELS: dict[str, dict[str, int]] = {
    "quick": {
        "deter": 256,
        "groups": 32,
        "classes": 16,
        "hidden": 200,
        "action": 7,
        "width": 256,
        "blocks": 1,
        "success": 256,
    },
    "base": {
        "deter": 1024,
        "groups": 32,
        "classes": 32,
        "hidden": 1000,
        "action": 7,
        "width": 256,
        "blocks": 2,
        "success": 256,
    },
    "paper": {
        "deter": 1024,
        "groups": 32,
        "classes": 32,
        "hidden": 1000,
        "action": 7,
        "width": 512,
        "blocks": 1,
        "success": 256,
    },
}
"""Sizes of the presets of the same names (quick and small have the same)."""
CHUNK = 28
BATCHES = (256, 1024)

logger = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line.

    Raises:
        UserError: something cannot be built here.
    """
    parser = argparse.ArgumentParser(prog="worldaction build-kernels", description=__doc__)
    parser.add_argument("--arch", nargs="+", default=list(ARCHS), help="kinds of GPU (default: all three)")
    parser.add_argument("--model", nargs="+", default=list(MODELS), help="presets whose sizes to build (default: all)")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for arch in options.arch:
        build(arch, options.model)
    logger.info("all are in %s", cache_folder())


def build(arch: str, models: Sequence[str]) -> list[Path]:
    """Compile what the sizes of some presets need; what is compiled already stays.

    Args:
        arch: such as "sm_90".
        models: keys of `MODELS`.

    Returns:
        the files of the cache, one for each source.
    """
    if arch not in ARCHS:
        raise UserError(f"arch {arch!r} is not known; give some of {', '.join(ARCHS)}")
    strange = [name for name in models if name not in MODELS]
    if strange:
        raise UserError(f"model {strange[0]!r} is not known; give some of {', '.join(MODELS)}")
    wanted = {each for name in models for each in sources(MODELS[name] | {"chunk": CHUNK}, arch)}
    paths = []
    for each in sorted(wanted, key=lambda each: (each.name, each.sizes)):
        cubin(each, arch)
        paths += sorted(cache_folder().glob(f"{each.name}-{each.key}-{arch}-*.cubin"))
    return paths


def sources(sizes: Mapping[str, int], arch: str) -> Iterator[Source]:
    """What a model of some sizes compiles on a kind of GPU, in both precisions."""
    blocks, shared = ARCHS[arch]
    yield source("random", BF16=0)
    yield from dream_sources(sizes)
    yield from scan_sources(sizes)
    for batch in BATCHES:
        yield from rollout_sources(sizes, batch, blocks=blocks, shared=shared)
        yield from denoise_sources(sizes, batch, blocks=blocks, shared=shared)
