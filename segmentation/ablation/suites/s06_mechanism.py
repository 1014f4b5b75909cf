"""s06: a long skip is two things, a path for information and a path for the gradient; which of them helps?"""

from collections.abc import Mapping, Sequence
from typing import Any

from segmentation.ablation.suites.bench import train_and_score
from segmentation.ablation.suites.suite import Cell, Findings, Found, Readout, Suite, above, gain, replicates
from segmentation.ablation.suites.tost import equivalent
from segmentation.ablation.suites.views import bars_of, table_of

ARMS: dict[str, dict[str, Any]] = {
    "zeros": {"long_skip_placebo": "zeros"},
    "dup": {"long_skip_placebo": "dup"},
    "gradient only": {"long_skip_gradient": "backward_only"},
    "information only": {"long_skip_gradient": "forward_only"},
    "both": {},
}
GROUPS: dict[str, dict[str, Any]] = {
    "batch norm": {"norm": "batch", "long_skip": "add"},
    "no norm": {"norm": "none", "init": "torch", "long_skip": "add"},
    "batch norm, concat": {"norm": "batch", "long_skip": "concat"},
}
THIN = {"task": "thin", "noise": 0.3}
MARGIN = 0.02
"""Difference of Dice that counts as none."""


def _cells(grid: Any) -> list[dict[str, Any]]:
    return [
        {"task": THIN, "network": GROUPS[group] | ARMS[arm], "seed": seed, "steps": grid["steps"], "of": [group, arm]}
        for seed in range(grid["seeds"])
        for group in GROUPS
        for arm in ARMS
    ]


def _run(cell: Cell) -> dict[str, Any]:
    return train_and_score(cell)


def _parts(group: str, arms: Mapping[str, Sequence[float]], decides: bool) -> list[Readout]:
    """Whether information alone gains more than the gradient alone, and both together more than information."""
    information, gradient = (gain(arms[part], arms["zeros"]) for part in ("information only", "gradient only"))
    more = gain(arms["both"], arms["information only"])
    return [
        above(
            f"{group}: gain of information less gain of gradient", "above 0", gain(information, gradient), 0.0, decides
        ),
        above(f"{group}: both minus information only", "above 0", more, 0.0, decides),
    ]


def _judge(found: Found, grid: Any) -> Findings:
    del grid
    dice = replicates(found, "dice")
    batch, bare = dice["batch norm"], dice["no norm"]
    return Findings(
        readouts=[
            *_parts("batch norm", batch, decides=True),
            above("batch norm: information only minus zeros", "about +0.39 in a pilot",
                  gain(batch["information only"], batch["zeros"]), 0.0, decides=False),
            above("batch norm: gradient only minus zeros", "about +0.09 in a pilot",
                  gain(batch["gradient only"], batch["zeros"]), 0.0, decides=False),
            equivalent("batch norm: dup minus zeros", gain(batch["dup"], batch["zeros"]), MARGIN, decides=False),
            above("no norm: gradient only minus zeros", "about +0.35 in a pilot",
                  gain(bare["gradient only"], bare["zeros"]), 0.0, decides=False),
            above("no norm: both minus information only", "about +0.2 in a pilot",
                  gain(bare["both"], bare["information only"]), 0.0, decides=False),
            *_parts("batch norm, concat", dice["batch norm, concat"], decides=False),
        ],
        reading=[
            "The five arms of a group have the same parameters and the same multiplications. Information only passes "
            "the encoder map and stops its gradient (z.detach()); gradient only passes a map of zeros through which "
            "the gradient flows (z - z.detach()); zeros passes neither; dup hands the decoder its own map once more.",
            "Skips that add decide. With concat, gradient only is handicapped: the decoder's weights for the skip only "
            "ever see zeros, so they stay as they were drawn, and the gradient reaches the encoder through weights "
            "that never learn. Concat stands beside add for that reason.",
            "The two parts interact: their gains need not add up to the gain of both, and how much the gradient is "
            "worth depends on whether a normalisation keeps gradients alive without it. The answer is for thin "
            "curves, a small network and few steps.",
        ],
        figures=[bars_of(dice, "Thin curves: what passes through the skip", "mean Dice over test cases")],
        tables=[table_of(dice, "Mean Dice with 95 % interval over replicates")],
    )  # fmt: skip


SUITE = Suite(
    name="s06-mechanism",
    title="Optimisation or detail?",
    claim=(
        "Skip connection can help with optimization. They can also help with preserving details (information) from "
        "earlier layers, e.g. in U-Net."
    ),
    pass_rule=(
        "On thin curves with batch norm and skips that add, passing information alone gains more over the zeros "
        "placebo than passing the gradient alone, and passing both gains over information alone, each with its whole "
        "95 % interval over replicates."
    ),
    grid={
        "smoke": {"seeds": 1, "steps": 50},
        "cpu": {"seeds": 5, "steps": 200},
        "gpu": {"seeds": 10, "steps": 1000},
    },
    cells=_cells,
    run=_run,
    judge=_judge,
)
