"""Patches of nnU-Net's own loader. Run by the Python of its environment; imports nothing of ours but worker.py.

    nnunet_loader.py PATCH                          prepares the raw data set
    nnunet_loader.py PATCH BATCH COUNT STRENGTH     answers one line for each line that it reads

The folders of nnU-Net come by its environment variables, and nnUNet_n_proc_DA=0: patches are made in this process.
PATCH is like 128,128,128. STRENGTH "theirs" takes the transforms that nnUNetTrainer builds; "ours" takes those of
batchgeneratorsv2 with the probabilities and ranges of SkipSeg, see loader.py.
"""

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.transforms.intensity.brightness import (
    BrightnessAdditiveTransform,
    MultiplicativeBrightnessTransform,
)
from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from batchgeneratorsv2.transforms.spatial.low_resolution import SimulateLowResolutionTransform
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from batchgeneratorsv2.transforms.utils.remove_label import RemoveLabelTansform
from nnunetv2.experiment_planning.plan_and_preprocess_api import (
    extract_fingerprints,
    plan_experiments,
    preprocess,
)
from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from tests.benchmarks.worker import claim_output, timed

PATCH = [int(size) for size in sys.argv[1].split(",")]
PREPARED = Path(str(nnUNet_preprocessed)) / "Dataset001_Loader"


def prepare() -> None:
    """Plan and preprocess with nnU-Net, but for the size of the patch."""
    path = PREPARED / "nnUNetPlans.json"
    if not path.is_file():
        extract_fingerprints([1], num_processes=1)
        plan_experiments([1])
    plans = json.loads(path.read_text())
    plans["configurations"][configuration()]["patch_size"] = PATCH
    path.write_text(json.dumps(plans))
    preprocess([1], configurations=[configuration()], num_processes=[1])


def configuration() -> str:
    """Name of the configuration for patches of this many axes."""
    return "2d" if len(PATCH) == 2 else "3d_fullres"


class TurnAndZoom(SpatialTransform):
    """Rotation and zoom together in a share of the patches, as ours draw them."""

    share = 0.6

    def get_parameters(self, **data_dict: Any) -> dict[str, Any]:
        """Draw whether both take place."""
        self.p_rotation = self.p_scaling = float(np.random.uniform() < self.share)
        return super().get_parameters(**data_dict)


def our_transforms() -> ComposeTransforms:
    """The probabilities and ranges of SkipSeg at strength 1."""
    angle, flat = math.radians(20), len(PATCH) == 2
    contrast, shift, noise, sigma = (0.25, 0.15, 0.06, 1.2) if flat else (0.2, 0.08, 0.03, 0.9)
    turn = TurnAndZoom(PATCH, 0, False, rotation=(-angle, angle), scaling=(0.8, 1.2), bg_style_seg_sampling=False)
    shares = {
        MultiplicativeBrightnessTransform((1 - contrast, 1 + contrast), False): 0.3,
        BrightnessAdditiveTransform(-shift, shift): 0.3,
        GammaTransform((1 / 1.4, 1.4), 0, False, 1, 0): 0.3,
        GaussianNoiseTransform((0, noise), 1, False): 0.15,
        GaussianBlurTransform((0.3, sigma), False, False, p_per_channel=1, benchmark=True): 0.15,
        SimulateLowResolutionTransform((0.5, 0.95), False, True, (), p_per_channel=1): 0.1 if flat else 0.0,
    }
    steps = [RandomTransform(transform, share) for transform, share in shares.items()]
    mirror = MirrorTransform(allowed_axes=tuple(range(len(PATCH))))
    return ComposeTransforms([turn, *steps, mirror, RemoveLabelTansform(-1, 0)])


def loader(batch: int, strength: str) -> Any:
    """The training loader that nnUNetTrainer makes, without deep supervision."""
    plans = json.loads((PREPARED / "nnUNetPlans.json").read_text()) | {"continue_training": False}
    description = json.loads((PREPARED / "dataset.json").read_text())
    trainer = nnUNetTrainer(plans, configuration(), "all", description, torch.device("cpu"))
    trainer.enable_deep_supervision = False
    trainer.batch_size = batch
    trainer.oversample_foreground_percent = 0.5  # the share of SkipSeg
    if strength == "ours":
        trainer.get_training_transforms = lambda *_, **__: our_transforms()
    return trainer.get_dataloaders()[0]


def main() -> None:
    """Prepare, or answer with the seconds that a patch took."""
    if len(sys.argv) == 2:
        prepare()
        return
    answers = claim_output()
    batch, count, strength = int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    torch.set_num_threads(1)
    batches = loader(batch, strength)
    for _ in sys.stdin:
        with timed(answers, count):
            for _ in range(count // batch):
                next(batches)


if __name__ == "__main__":
    main()
