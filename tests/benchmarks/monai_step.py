"""Steps of what one writes with MONAI: DynUNet with deep supervision, DiceCELoss, SGD. Arguments: WORK.json.

Answers one line for each line that it reads.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from monai.losses.dice import DiceCELoss
from monai.networks.nets.dynunet import DynUNet

from tests.benchmarks.worker import claim_output, timed


def make_network(work: dict[str, Any]) -> DynUNet:
    """The plan's network; the transposed convolutions have a bias, as those of the others."""
    levels = len(work["widths"])
    return DynUNet(
        spatial_dims=len(work["patch"]),
        in_channels=work["channels"],
        out_channels=work["classes"],
        kernel_size=[3] * levels,
        strides=work["strides"],
        upsample_kernel_size=work["strides"][1:],
        filters=work["widths"],
        norm_name=("INSTANCE", {"affine": True}),
        deep_supervision=levels > 3,
        deep_supr_num=max(1, levels - 3),
        trans_bias=True,
    ).train()


def main(path: Path) -> None:
    """Answer with the seconds of a step."""
    answers = claim_output()
    work = json.loads(path.read_text())
    torch.set_num_threads(work["threads"])
    torch.manual_seed(0)
    network = make_network(work)
    optimiser = torch.optim.SGD(network.parameters(), 1e-2, momentum=0.99, nesterov=True, weight_decay=3e-5)
    loss = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True)
    images = torch.rand(work["batch"], work["channels"], *work["patch"])
    labels = torch.randint(0, work["classes"], (work["batch"], 1, *work["patch"]))
    parameters = sum(parameter.numel() for parameter in network.parameters())
    for _ in sys.stdin:
        with timed(answers, parameters=parameters):
            optimiser.zero_grad()
            outputs = network(images)
            # All levels come at the size of the image, stacked along axis 1.
            levels = outputs.unbind(dim=1) if network.deep_supervision else [outputs]
            weights = [0.5**level for level in range(len(levels))]
            losses = [w * loss(each, labels) for w, each in zip(weights, levels, strict=True)]
            total = torch.stack(losses).sum() / sum(weights)
            total.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 12)
            optimiser.step()
            total.item()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
