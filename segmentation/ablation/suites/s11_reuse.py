"""s11: feature reuse: do dense short skips do as well with the same parameters, and what is read again where?"""

from typing import Any

import numpy as np

from segmentation.ablation.suites.bench import DEFAULTS, dice_of, fit, make_network, make_pictures, mean
from segmentation.ablation.suites.suite import (
    Cell,
    Findings,
    Found,
    Readout,
    Suite,
    Table,
    above,
    gain,
    replicates,
    within,
)
from segmentation.ablation.suites.tost import not_worse
from segmentation.ablation.suites.views import bars_of, table_of
from segmentation.config import NetworkSettings
from segmentation.figures import Figure
from segmentation.model.blocks import ConvBlock
from segmentation.model.budget import solve_widths
from segmentation.model.layers import TotalCost, total_cost
from segmentation.model.unet import UNet
from segmentation.plain import from_plain
from segmentation.probes.lesion import How, lesioned_skips
from segmentation.probes.reuse import draw, reuse_map
from segmentation.probes.share import weight_shares
from segmentation.probes.similarity import compare
from segmentation.probes.stages import stages

SHORTS = ("none", "add", "dense")
LEVELS = (0, 1, 2)
CONVS = 4
"""Convolutions in a block: enough for late ones to read several earlier ones."""
MARGIN = 0.02
"""Dice by which dense may be worse without being called worse."""
REUSE_LEVEL = 1
"""Encoder level whose dense block is drawn."""
LESIONS: tuple[How, ...] = ("zero", "shuffle")
SIZE = 48
THIN: dict[str, Any] = {"task": "thin", "noise": 0.3, "size": SIZE}
_TITLES = {
    "lost": "Dice lost when one long skip is replaced",
    "share": "Weight energy share of the long skip",
    "cka": "CKA of encoder and decoder",
}


def _cells(grid: Any) -> list[dict[str, Any]]:
    widths = {(short, width): matched_widths(short, width) for short in SHORTS for width in grid["widths"]}
    return [
        {
            "network": {"short_skip": short, "convs": CONVS, "widths": widths[short, width]},
            "look": width == grid["look_at"],
            "task": THIN,
            "seed": seed,
            "steps": grid["steps"],
            "of": [f"width {width}", short],
        }
        for seed in range(grid["seeds"])
        for width in grid["widths"]
        for short in SHORTS
    ]


def matched_widths(short: str, width: int) -> list[int] | None:
    """Widths at which a network has the parameters of the plain one of ``width``, to 1 %.

    Examples:
        >>> matched_widths("none", 6), matched_widths("dense", 6)
        ([6, 12, 24, 48], [9, 19, 40, 78])
    """
    plain = DEFAULTS | {"convs": CONVS, "width": width}
    arm = from_plain(NetworkSettings, plain | {"short_skip": short, "budget_match": "params"})
    return solve_widths(arm, from_plain(NetworkSettings, plain), dims=2, in_channels=1, classes=2).widths


def _run(cell: Cell) -> dict[str, Any]:
    data = make_pictures(seed=cell["seed"], **cell["task"])
    network = make_network(cell["seed"], **cell["network"])
    fit(network, data.images, data.labels, cell["steps"], cell["seed"])

    def dice() -> float:
        return mean(dice_of(network, data.test_images, data.test_labels))

    intact = dice()
    if not cell["look"]:
        return {"dice": intact}
    lost: dict[str, float] = {}
    for how in LESIONS:
        for level in LEVELS:
            with lesioned_skips(network, [level], how):
                lost[f"{how} L{level}"] = intact - dice()
    shares = weight_shares(network)
    blocks = stages(network)
    ends = [{f"{side}{level}": blocks[f"{side}{level}"] for level in LEVELS} for side in "ED"]
    cka = compare((network, ends[0]), (network, ends[1]), [data.test_images], seed=cell["seed"])
    return {
        "dice": intact,
        "lost": lost,
        "share": {f"L{level}": shares[level] for level in LEVELS},
        "cka": {f"L{level}": float(cka[level, level]) for level in LEVELS},
        "reuse": _reuse(network),
    }


def _reuse(network: UNet) -> list[list[float]] | None:
    """Reuse map of the dense block at one level of the encoder; None if it is not dense."""
    block = network.encoder[REUSE_LEVEL]
    return reuse_map(block).tolist() if isinstance(block, ConvBlock) and block.short == "dense" else None


def _judge(found: Found, grid: Any) -> Findings:
    dice = replicates(found, "dice")
    looked = [(cell, result) for cell, result in found if cell["look"]]
    by_part = {part: _by_arm(looked, part) for part in ("share", "cka", "lost")}
    plain_share = by_part["share"]["none"]["L0"]
    lost = by_part["lost"]["none"]
    return Findings(
        readouts=[
            *(_against_plain(dice, "dense", budget) for budget in dice),
            *(_against_plain(dice, "add", budget, decides=False) for budget in dice),
            within("plain: weight energy share of the skip at L0", "about 0.5", plain_share, 0.4, 0.6, decides=False),
            above("plain: Dice lost when L0 is zeroed", "above 0", lost["zero L0"], 0.0, decides=False),
            above(
                "plain: Dice lost when L0 is zeroed, less that of L2",
                "above 0: the finest level matters most",
                gain(lost["zero L0"], lost["zero L2"]),
                0.0,
                decides=False,
            ),
        ],
        reading=[
            "At equal parameters a dense block has wider levels, for each of its convolutions writes a part of them "
            f"only. Not worse means that the whole 90 % interval of the difference lies above -{MARGIN} Dice (one of "
            "the two one-sided tests of TOST at 5 %), at each of the budgets. Parameters are equal to 1 %; "
            "multiplications and activation memory, which are not, stand in the table: compact speaks of parameters.",
            f"With {CONVS} convolutions a block, a short skip also helps the optimisation, so that a gain at equal "
            "parameters need not come from reuse. The map of weights says what is read again: each row is divided by "
            "its largest entry. All networks have long skips by concatenation; their weight share, their similarity "
            "(CKA) across a level and the lesions are measured on test images at the middle budget "
            f"({grid['look_at']} channels). A small share of weights does not mean a small use, and a lesion shows "
            "reliance, not need.",
        ],
        figures=[
            bars_of(dice, "Dice at equal parameters, by the width of the plain network", "mean Dice over test cases"),
            bars_of(by_part["lost"], "Dice lost when one long skip is replaced", "Dice lost"),
            bars_of(by_part["share"], "Weight energy share of the long skip", "share"),
            bars_of(by_part["cka"], "Similarity of encoder and decoder at the same level", "linear CKA"),
            _reuse_figure(looked),
        ],
        tables=[
            table_of(dice, "Mean Dice with 95 % interval over replicates"),
            _budgets(found),
            *(table_of(by_part[part], title) for part, title in _TITLES.items()),
        ],
    )


def _against_plain(dice: dict[str, dict[str, list[float]]], arm: str, budget: str, decides: bool = True) -> Readout:
    """Dice of an arm minus that of plain at one budget."""
    arms = dice[budget]
    return not_worse(f"{budget}: Dice, {arm} minus plain", gain(arms[arm], arms["none"]), MARGIN, decides)


def _by_arm(looked: Found, part: str) -> dict[str, dict[str, list[float]]]:
    """Arm, name of the measure, to one value a replicate."""
    arms: dict[str, dict[str, list[float]]] = {short: {} for short in SHORTS}
    for cell, result in looked:
        for name, value in result[part].items():
            arms[cell["of"][1]].setdefault(name, []).append(value)
    return arms


def _budgets(found: Found) -> Table:
    """Cost of every arm at every budget; it does not depend on the seed."""
    costs = {tuple(cell["of"]): _cost(cell) for cell, _ in found if cell["seed"] == 0}
    rows = [[budget, arm, c.parameters, c.macs / 1e6, c.activation_bytes / 2**20] for (budget, arm), c in costs.items()]
    return Table("Budgets", ["", "short skip", "parameters", "million MACs", "activations, MiB"], rows)


def _cost(cell: Cell) -> TotalCost:
    """Cost of one network on one image of the bench."""
    settings = from_plain(NetworkSettings, DEFAULTS | cell["network"])
    return total_cost(settings, dims=2, in_channels=1, classes=2, size=(SIZE, SIZE))


def _reuse_figure(looked: Found) -> Figure:
    """Mean reuse map over replicates."""
    maps = [result["reuse"] for _, result in looked if result["reuse"] is not None]
    return draw(f"the dense block of encoder level {REUSE_LEVEL}", np.array(maps, np.float64).mean(axis=0))


SUITE = Suite(
    name="s11-reuse",
    title="Feature reuse and compactness",
    claim=(
        "This architecture allows for a rich flow of information, ensuring that all layers have access to the "
        "features learned by earlier layers. The result is a model that is not only compact but also highly "
        "efficient in terms of feature reuse."
    ),
    pass_rule=(
        f"At each of three parameter budgets the Dice of dense is not worse than that of plain by {MARGIN}: the whole "
        "90 % interval of the paired difference over replicates lies above the negative margin (one-sided test at 5 %)."
    ),
    grid={
        "smoke": {"widths": [4, 6, 8], "look_at": 6, "seeds": 1, "steps": 50},
        "cpu": {"widths": [4, 6, 8], "look_at": 6, "seeds": 5, "steps": 200},
        "gpu": {"widths": [8, 16, 32], "look_at": 16, "seeds": 10, "steps": 1000},
    },
    cells=_cells,
    run=_run,
    judge=_judge,
)
