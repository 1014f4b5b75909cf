"""s16: on real data: is our U-Net as good as a reference in the manner of nnU-Net, and what do its skips bring?"""

from collections import defaultdict
from collections.abc import Mapping
from statistics import fmean
from typing import Any

from segmentation.ablation.suites.suite import Findings, Found, Readout, Suite, lies_above
from segmentation.ablation.suites.views import ByPatientAndSeed, compare, comparison_table, series_of
from segmentation.figures import Figure

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

LEVEL = 0.02
"""Difference of mean Dice that does not matter between our own arms."""


def _study(grid: Mapping[str, Any]) -> dict[str, Any]:
    """What the study file holds."""
    return {
        "name": "reference",
        "question": "Is the planned U-Net level with a reference network, and what do its long skips bring?",
        "base": {"folds": 5, "mirror": True, **grid["base"]},
        "conditions": ARMS,
        "match_to": "concat",
        "contrasts": [list(pair) for pair in PAIRS],
        "seeds": list(range(grid["seeds"])),
        "margin": LEVEL,
    }


def _judge(found: Found, grid: Mapping[str, Any]) -> Findings:
    del grid
    patients = by_condition(found)
    level = compare(patients["concat"], patients["nnunet_like"], MARGIN)
    met = lies_above(level, -MARGIN)
    return Findings(
        readouts=[Readout("concat minus nnunet_like", f"above -{MARGIN}", level.mean, level.low, level.high, met)],
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
                series=[series_of("Dice", [[fmean(v.values()) for v in by.values()] for by in patients.values()])],
            )
        ],
        tables=[comparison_table(patients, PAIRS, LEVEL)],
    )


def by_condition(found: Found) -> dict[str, ByPatientAndSeed]:
    """Dice of each patient under each seed, for each condition; each patient is held out in one fold."""
    collected: defaultdict[str, defaultdict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for cell, result in found:
        for patient, dice in result["dice"].items():
            collected[cell["condition"]][patient][cell["seed"]] = dice
    return {name: dict(sorted(by.items())) for name, by in collected.items()}


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
