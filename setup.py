"""Packaging: the dependencies and the entry points. The version is written in worldaction/__init__.py alone."""

import re
from pathlib import Path

from setuptools import find_packages, setup

# One minor of TorchRL and TensorDict, locked together: their names move between minors.
CORE = [
    "torch>=2.10,<2.14",
    "torchrl>=0.14,<0.15",
    "tensordict>=0.14,<0.15",
    "gymnasium>=1.2,<2",
    "mujoco>=3.3",
    "stable-baselines3>=2.8",
    "numpy>=2",
    "tensorboard",
    "tyro",
    "safetensors",
    "matplotlib",
    "imageio-ffmpeg",
    "pillow>=10.1",
    "tqdm",
]

# Readers and writers of other formats; lerobot, minari and robomimic themselves are not needed.
DATA = ["pyarrow", "av", "h5py"]
# A policy for robots, over a WebSocket.
SERVE = ["websockets>=13", "msgpack"]
EXTRAS = {
    "data": DATA,
    "serve": SERVE,
    # pins an old MuJoCo, so it wants an environment of its own
    "metaworld": ["metaworld>=3"],
    # teachers of the loss `alignment`
    "align": ["transformers"],
    # compiles the kernels for the GPU in hand; CUDA builds of torch bring both
    "cuda": ["cuda-bindings", "nvidia-cuda-nvrtc"],
    "test": ["pytest", "pytest-timeout", "pytest-xdist", "ruff", "mypy", *DATA, *SERVE],
}

HERE = Path(__file__).parent
README = HERE / "README.md"
# Where the project is published; everything else that needs an address takes it from here, see CONTRIBUTING.md.
REPOSITORY = "https://github.com/worldaction/worldaction"
# Read, not imported: building must not need torch.
VERSION = re.findall(r'^__version__ = "(.+)"', (HERE / "worldaction/__init__.py").read_text(encoding="utf-8"), re.M)[0]


def absolute(text: str) -> str:
    """The README as a package index shows it: relative links and pictures lead to the repository."""
    text = re.sub(r"(!\[[^]]*]\()(?!\w+:|#)", rf"\g<1>{REPOSITORY}/raw/main/", text)
    return re.sub(r"(?<!!)(\[[^]]*]\()(?!\w+:|#)", rf"\g<1>{REPOSITORY}/blob/main/", text)


setup(
    name="worldaction",
    version=VERSION,
    description="World models with inverse dynamics, diffusion policies, and PPO inside the frozen world model",
    long_description=absolute(README.read_text(encoding="utf-8")) if README.exists() else "",
    long_description_content_type="text/markdown",
    url=REPOSITORY,
    project_urls={
        "Source": REPOSITORY,
        "Documentation": f"{REPOSITORY}/tree/main/docs",
        "Issues": f"{REPOSITORY}/issues",
        "Changelog": f"{REPOSITORY}/blob/main/CHANGELOG.md",
    },
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=find_packages(
        include=[f"{name}{below}" for name in ("worldaction", "envs", "agents", "experiments") for below in ("", ".*")]
    ),
    package_data={"": ["py.typed", "*.cu", "*.cuh", "*.cubin", "*.cpp", "*.h", "*.xml", "*.json", "*.npz"]},
    install_requires=CORE,
    extras_require=EXTRAS,
    entry_points={
        "console_scripts": ["worldaction = worldaction.__main__:main"],
    },
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
)
