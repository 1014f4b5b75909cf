"""s17: the deep residual network of Drozdzal et al. on electron microscopy: long, short, or both kinds of skips?"""

from collections import defaultdict
from collections.abc import Mapping
from statistics import fmean
from typing import Any

from segmentation.ablation.suites.suite import Findings, Found, Suite, exactly, gain
from segmentation.ablation.suites.views import bars_of, table_of

ARMS: dict[str, dict[str, Any]] = {
    "long and short": {},
    "long only": {"network.short_skip": "none"},
    "short only": {"network.long_skip": "none", "network.input_skip": False},
    "neither": {"network.long_skip": "none", "network.input_skip": False, "network.short_skip": "none"},
}
NORMS = ("batch", "none")


def _study(grid: Mapping[str, Any]) -> dict[str, Any]:
    """What the study file holds."""
    conditions = {
        f"{arm}, {norm} norm": {"network.preset": "resunet_drozdzal", "network.norm": norm, **settings}
        for norm in NORMS
        for arm, settings in ARMS.items()
    }
    return {
        "name": "drozdzal",
        "question": "Is it beneficial for a very deep network to have both long and short skips?",
        "base": {"folds": 7, **grid["base"]},
        "conditions": conditions,
        "contrasts": [
            [f"long and short, {n} norm", f"{other} only, {n} norm"] for n in NORMS for other in ("long", "short")
        ],
        "folds": [0],
        "seeds": list(range(grid["seeds"])),
    }


def _judge(found: Found, grid: Mapping[str, Any]) -> Findings:
    dice: defaultdict[str, defaultdict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for cell, result in sorted(found, key=lambda pair: pair[0]["seed"]):
        arm, _, norm = cell["condition"].rpartition(", ")
        dice[norm][arm].append(fmean(result["dice"].values()))
    batch = dice["batch norm"]
    both = [
        min(pair) > 0
        for pair in zip(
            gain(batch["long and short"], batch["long only"]),
            gain(batch["long and short"], batch["short only"]),
            strict=True,
        )
    ]
    needed = grid["needed"]
    return Findings(
        readouts=[
            exactly(
                "seeds in which both kinds beat long only and short only",
                f"at least {needed} of {len(both)}",
                sum(both),
                sum(both) >= needed,
            )
        ],
        reading=[
            "The paper compares the validation loss, a soft Dice, on electron microscopy; here it is the Dice of the "
            "held-out images of one split, which shows whether the order holds over seeds, not over patients.",
            "The network has the paper's numbers of blocks, 3, 8, 10, 3, 10, 8, 3, and its additive long skips. The "
            "training is ours: AdamW instead of RMSprop, Dice with cross-entropy, planned patches instead of whole "
            "images, no dropout, a moving average of the weights, our length and augmentation.",
        ],
        figures=[bars_of(dice, "Dice by skips and normalisation", "mean Dice of the held-out images")],
        tables=[table_of(dice, "Mean Dice with 95 % interval over seeds")],
    )


SUITE = Suite(
    name="s17-drozdzal",
    title="Long and short skips in a very deep network",
    claim=(
        "For a very deep FCN it is beneficial to have both long and short skip connections (Drozdzal et al. 2016, "
        "abstract)."
    ),
    pass_rule="With batch norm, long and short skips together beat long only and short only in at least 4 of 5 seeds.",
    grid={"gpu": {"seeds": 5, "needed": 4, "base": {}}},
    judge=_judge,
    study=_study,
)
