"""s16: on real data: is our U-Net as good as a reference in the manner of nnU-Net, and what do its skips bring?"""

from collections import defaultdict
from collections.abc import Mapping
from statistics import fmean
from typing import Any

from segmentation.ablation.suites.suite import Findings, Found, Suite, exactly
from segmentation.ablation.suites.views import comparison_table, series_of
from segmentation.figures import Figure
from segmentation.statistics import paired_difference

ARMS: dict[str, dict[str, Any]] = {
    "nnunet_like": {"network.preset": "nnunet_like", "network.deep_supervision": False},
    "concat": {},
    "none": {"network.long_skip": "none"},
    "none, matched": {"network.long_skip": "none", "network.budget_match": "params"},
    "residual": {"network.short_skip": "add"},
}
PAIRS = [("concat", "nnunet_like"), ("concat", "none"), ("concat", "none, matched"), ("residual", "concat")]
MARGIN = 0.03
"""Difference of mean Dice that still counts as level with the reference."""


def _study(grid: Mapping[str, Any]) -> dict[str, Any]:
    """What the study file holds."""
    return {
        "name": "reference",
        "question": "Is the planned U-Net level with a reference network, and what do its long skips bring?",
        "base": {"folds": 5, "mirror": True, **grid["base"]},
        "conditions": ARMS,
        "match_to": "concat",
        "contrasts": [
            ["concat", "nnunet_like"],
            ["concat", "none"],
            ["concat", "none, matched"],
            ["residual", "concat"],
        ],
        "seeds": list(range(grid["seeds"])),
        "margin": 0.02,
    }


def _judge(found: Found, grid: Mapping[str, Any]) -> Findings:
    del grid
    patients = by_condition(found)
    level = paired_difference(patients["concat"], patients["nnunet_like"], margin=MARGIN)
    reached = level.low is not None and level.low > -MARGIN
    return Findings(
        readouts=[
            exactly(
                "concat minus nnunet_like, lower end of the 95 % interval",
                f"above -{MARGIN}",
                level.mean if level.low is None else level.low,
                reached,
            ),
        ],
        reading=[
            "Means over patients, each of them held out once and scored over all seeds. Published scores on the same "
            "data set differ by several points with split, preparation and length of training: compare with the "
            "reference arm, which was trained here on the same folds and for as many steps.",
            "The reference has nnU-Net's plain network (strided convolutions, instance norm, leaky ReLU), in our "
            "pipeline: the comparison is of networks, not of programs.",
        ],
        figures=[
            Figure(
                "points",
                "Mean Dice with 95 % interval over patients",
                x_label="Dice",
                ticks=list(patients),
                series=[series_of("Dice", [list(scores.values()) for scores in patients.values()])],
            )
        ],
        tables=[comparison_table(patients, PAIRS)],
    )


def by_condition(found: Found) -> dict[str, dict[str, float]]:
    """Mean Dice of each patient over folds and seeds, for each condition."""
    collected: defaultdict[str, defaultdict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for cell, result in found:
        for patient, dice in result["dice"].items():
            collected[cell["condition"]][patient].append(dice)
    return {name: {patient: fmean(v) for patient, v in sorted(by.items())} for name, by in collected.items()}


SUITE = Suite(
    name="s16-reference",
    title="Real data against a reference",
    claim=(
        "This strategy ensures better segmentation accuracy, as the decoder can use both global context and precise "
        "localization information."
    ),
    pass_rule=(
        "The mean Dice of our planned U-Net is less than 3 points below that of the reference: its whole 95 % "
        "interval is."
    ),
    grid={"gpu": {"seeds": 3, "base": {}}},
    judge=_judge,
    study=_study,
)
