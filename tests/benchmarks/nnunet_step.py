"""Steps of nnUNetTrainer on the CPU, as it trains. Run by its environment's Python; imports of ours worker.py alone.

    nnunet_step.py WORK.json

WORK.json says patch, batch, channels, classes and threads; plans.json and dataset.json lie beside it. The folders of
nnU-Net come by its environment variables. Answers one line for each line that it reads.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch.nn import functional

from tests.benchmarks.worker import claim_output, timed


def make_trainer(folder: Path) -> Any:
    """The trainer of the plans, ready to train; all that it looks for in the prepared data is the kind of files."""
    plans = json.loads((folder / "plans.json").read_text()) | {"continue_training": False}
    dataset = json.loads((folder / "dataset.json").read_text())
    configuration = next(iter(plans["configurations"]))
    about = plans["configurations"][configuration]
    prepared = Path(str(nnUNet_preprocessed)) / plans["dataset_name"] / about["data_identifier"]
    prepared.mkdir(parents=True, exist_ok=True)
    (prepared / "case.b2nd").touch()
    trainer = nnUNetTrainer(plans, configuration, 0, dataset, torch.device("cpu"))
    trainer.initialize()
    trainer.set_deep_supervision_enabled(True)
    trainer.network.train()
    return trainer


def make_batch(work: dict[str, Any], trainer: Any) -> dict[str, Any]:
    """Random images, and labels at every resolution that the trainer supervises."""
    torch.manual_seed(0)
    data = torch.rand(work["batch"], work["channels"], *work["patch"])
    labels = torch.randint(0, work["classes"], (work["batch"], 1, *work["patch"])).float()
    scales = trainer._get_deep_supervision_scales()
    sizes = [[round(n * s) for n, s in zip(work["patch"], scale, strict=True)] for scale in scales]
    return {"data": data, "target": [functional.interpolate(labels, size).short() for size in sizes]}


def comparable(network: torch.nn.Module) -> int:
    """Parameters that SkipSeg's and MONAI's network also have.

    Not counted are biases in front of a normalisation, which are without effect, and the coarsest output, which has no
    weight in the loss.
    """
    spare = ("conv.bias", "seg_layers.0.weight", "seg_layers.0.bias")
    return sum(value.numel() for name, value in network.named_parameters() if not name.endswith(spare))


def main(path: Path) -> None:
    """Answer with the seconds of a step."""
    answers = claim_output()
    work = json.loads(path.read_text())
    torch.set_num_threads(work["threads"])
    trainer = make_trainer(path.parent)
    batch, parameters = make_batch(work, trainer), comparable(trainer.network)
    for _ in sys.stdin:
        with timed(answers, parameters=parameters):
            trainer.train_step(batch)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
