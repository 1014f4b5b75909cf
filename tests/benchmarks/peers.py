"""The environment of the peers: nnU-Net beside the PyTorch that we use, away from our own packages.

``pip install nnunetv2`` alone brings the newest PyTorch with CUDA, and a torchvision whose operators are not those of
a PyTorch for CPUs. So PyTorch is fixed first, and torchvision is taken out again; prediction does not need it.
"""

import subprocess
import sys
from pathlib import Path

from segmentation.runs import user_cache

TORCH, NNUNET = "torch==2.13.0", "nnunetv2==2.8.1"
_STAMP = "built.txt"
_CHECK = "import nnunetv2.inference.predict_from_raw_data"


def default_folder() -> Path:
    """Where the environment lies unless told otherwise."""
    return user_cache() / "benchmarks" / "peers"


def build(folder: Path) -> None:
    """Make the environment, some 2 GB, from the package index that pip is set up for; one that stands is kept."""
    if is_built(folder):
        return
    python = folder / "bin" / "python"
    pip = [python, "-m", "pip", "--disable-pip-version-check"]
    for command in (
        [sys.executable, "-m", "venv", folder],
        [*pip, "install", TORCH],
        [*pip, "install", TORCH, NNUNET],
        [*pip, "uninstall", "--yes", "torchvision"],
        [python, "-c", _CHECK],
    ):
        subprocess.run(command, check=True)
    (folder / _STAMP).write_text(f"{TORCH} {NNUNET}\n")


def is_built(folder: Path) -> bool:
    """Tell whether the environment is complete, and of the versions that are compared."""
    stamp = folder / _STAMP
    return stamp.is_file() and stamp.read_text().split() == [TORCH, NNUNET]
