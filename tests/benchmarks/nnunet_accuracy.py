"""nnU-Net from raw files to masks of the held-out cases, with its own plan, by a deadline. Runs in its environment.

Arguments: DATASET CONFIGURATION DEADLINE SPLIT OUT; the folders of nnU-Net come by its environment variables.

What it does is what ``nnUNetv2_plan_and_preprocess`` and ``nnUNetv2_train`` do, except for what a deadline asks for:

- its learning rate falls as it does, to zero by (1 - t)^0.9, over the time that there is instead of over 1000 epochs;
- no pseudo Dice is computed on the way, which costs a sixth of the time and changes nothing in the final weights;
- the time that predicting takes is measured first and kept back; mirrored copies are averaged, as by default, where
  that takes at most a tenth of the time that is left, and left out otherwise;
- cases are predicted in this process: its pool would import everything again, once a process.
"""

import json
import os
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import torch
from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprints, plan_experiments, preprocess
from nnunetv2.inference.export_prediction import export_prediction_from_logits
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

MIRROR_SHARE = 0.1
"""Of the time that is left, what averaging mirrored copies may take."""


class TimedTrainer(nnUNetTrainer):
    """nnU-Net's trainer, whose schedule runs over the time until ``deadline``, less what predicting takes."""

    deadline = 0.0
    mirror = False
    steps = 0

    def run_training(self) -> None:
        """Train until the next step would not fit."""
        self.on_train_start()
        reserve = self.plan_prediction()
        self.lr_scheduler.max_steps = 1
        begun = time.time()
        available = max(1e-3, self.deadline - reserve - begun)
        done = longest = 0.0
        while done + longest < 1:
            self.network.train()
            self.lr_scheduler.step(done)
            self.train_step(next(self.dataloader_train))
            self.steps += 1
            now = (time.time() - begun) / available
            done, longest = now, max(longest, now - done)
        self.on_train_end()

    def plan_prediction(self) -> float:
        """Decide about mirroring; seconds that predicting the held-out cases takes."""
        cases = self.held_out()
        voxels = {name: float(np.prod(cases.load_case(name)[0].shape)) for name in cases.identifiers}
        typical = sorted(voxels, key=lambda name: voxels[name])[len(voxels) // 2]
        self.predict(cases, typical)  # the first time, libraries choose how to compute
        begun = time.time()
        self.predict(cases, typical)
        plain = (time.time() - begun) * sum(voxels.values()) / voxels[typical]
        mirrored = plain * 2 ** len(self.inference_allowed_mirroring_axes or ())
        self.mirror = mirrored < MIRROR_SHARE * (self.deadline - time.time())
        return mirrored if self.mirror else plain

    def held_out(self):
        """Its dataset of the cases that are held out."""
        return self.dataset_class(self.preprocessed_dataset_folder, self.do_split()[1])

    def predict(self, cases, name: str):
        """Logits of a case as its own validation computes them, and the properties of the case."""
        self.set_deep_supervision_enabled(False)
        predictor = nnUNetPredictor(use_mirroring=self.mirror, device=self.device, allow_tqdm=False)
        predictor.manual_initialization(
            self.network, self.plans_manager, self.configuration_manager, None, self.dataset_json,
            type(self).__name__, self.inference_allowed_mirroring_axes,
        )  # fmt: skip
        data, _, _, properties = cases.load_case(name)
        logits = predictor.predict_sliding_window_return_logits(torch.from_numpy(data[:]))
        self.set_deep_supervision_enabled(self.enable_deep_supervision)
        return logits.cpu(), properties


def main(dataset: str, configuration: str, deadline: float, split: Path, out: Path) -> None:
    """Prepare, plan, train, predict."""
    cores = os.cpu_count() or 1
    torch.set_num_threads(cores)
    number = int(dataset[7:10])
    extract_fingerprints([number], num_processes=cores)
    plan_experiments([number])
    preprocess([number], configurations=(configuration,), num_processes=(cores,))
    prepared = Path(nnUNet_preprocessed) / dataset
    shutil.copy(split, prepared / "splits_final.json")
    described, plans = (json.loads((prepared / f"{name}.json").read_text()) for name in ("dataset", "nnUNetPlans"))
    plans["continue_training"] = False
    trainer = TimedTrainer(plans, configuration, 0, described, torch.device("cpu"))
    trainer.deadline = deadline
    begun = time.time()
    trainer.run_training()
    trained = time.time()
    out.mkdir(parents=True, exist_ok=True)
    cases = trainer.held_out()
    for name in cases.identifiers:
        logits, properties = trainer.predict(cases, name)
        export_prediction_from_logits(
            logits, properties, trainer.configuration_manager, trainer.plans_manager, described, str(out / name)
        )
    print(
        f"{trainer.steps} steps in {trained - begun:.0f} s, mirrored {trainer.mirror}, "
        f"predicted in {time.time() - trained:.0f} s, {deadline - time.time():.0f} s before the deadline"
    )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]), Path(sys.argv[4]), Path(sys.argv[5]))
