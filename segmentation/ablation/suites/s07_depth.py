"""s07: with more convolutions a block a plain U-Net gets worse; with additive short skips it does not."""

from collections.abc import Mapping, Sequence
from typing import Any

from segmentation.ablation.suites.bench import train_and_score
from segmentation.ablation.suites.suite import Cell, Findings, Found, Suite, Table, above, below, gain, replicates
from segmentation.ablation.suites.views import series_of, table_of
from segmentation.figures import Figure, Series

SHORTS = ("none", "add", "dense")
NORMS: dict[str, dict[str, Any]] = {"batch norm": {"norm": "batch"}, "no norm": {"norm": "none", "init": "torch"}}
BLOB = {"task": "blob", "size": 32, "noise": 0.3}
Values = Mapping[str, Mapping[str, Sequence[float]]]


def _cells(grid: Any) -> list[dict[str, Any]]:
    return [
        {
            "task": BLOB,
            "network": {"width": 6, "convs": convs, "short_skip": short} | NORMS[norm],
            "seed": seed,
            "steps": grid["steps"],
            "of": [_row(norm, convs), short],
        }
        for seed in range(grid["seeds"])
        for norm in NORMS
        for convs in grid["convs"]
        for short in SHORTS
    ]


def _row(norm: str, convs: int) -> str:
    """Name of a normalisation at a depth."""
    return f"{norm}, {convs} a block"


def _run(cell: Cell) -> dict[str, Any]:
    return train_and_score(cell)


def _judge(found: Found, grid: Any) -> Findings:
    dice, loss = replicates(found, "dice"), replicates(found, "loss")
    shallow, deep = min(grid["convs"]), max(grid["convs"])

    def deepened(values: Values, norm: str, short: str) -> list[float]:
        """Value of the deep network less that of the shallow one; one a replicate."""
        return gain(values[_row(norm, deep)][short], values[_row(norm, shallow)][short])

    def interaction(norm: str) -> list[float]:
        """What depth changes without short skips, less what it changes with them."""
        return gain(deepened(dice, norm, "none"), deepened(dice, norm, "add"))

    change = f"{deep} minus {shallow} convolutions a block"
    batch, bare = NORMS
    shallow_gain = gain(dice[_row(batch, shallow)]["add"], dice[_row(batch, shallow)]["none"])
    return Findings(
        readouts=[
            below(f"batch norm: Dice, {change}, plain less add", "below 0", interaction(batch), 0.0),
            below(f"batch norm, plain: Dice, {change}", "below 0: .90 to .68-.79 in a pilot",
                  deepened(dice, batch, "none"), 0.0, decides=False),
            above(f"batch norm, add: Dice, {change}", "above -0.05: stays at .90 in a pilot",
                  deepened(dice, batch, "add"), -0.05, decides=False),
            above(f"batch norm, dense: Dice, {change}", "above -0.05",
                  deepened(dice, batch, "dense"), -0.05, decides=False),
            above(f"batch norm, plain: training loss, {change}", "above 0: degradation, not overfitting",
                  deepened(loss, batch, "none"), 0.0, decides=False),
            below(f"batch norm: Dice, {shallow} convolutions a block, add minus plain",
                  "below 0.02: no gain where a plain network learns", shallow_gain, 0.02, decides=False),
            below(f"no norm: Dice, {change}, plain less add", "below 0", interaction(bare), 0.0, decides=False),
        ],
        reading=[
            f"A U-Net of depth 3 has {7 * shallow} convolutions in its blocks at {shallow} a block and {7 * deep} at "
            f"{deep}. Long skips are by concat throughout. The number that decides is an interaction: what depth does "
            "to the plain network, less what it does to the one with additive short skips. Degradation means that "
            "the training loss rises too (He et al. 2016, arXiv:1512.03385): a deeper network could copy a shallower "
            "one, so that more capacity cannot be the cause.",
            "All have the same number of steps and one learning rate. That speaks of training as it is usually done "
            "in a short time, not of what a deep plain network could reach with another schedule. Deeper networks "
            "have more parameters; with dense, a unit writes fewer channels the more units there are, so that its "
            "parameters hardly grow. Without normalisation the weights are PyTorch's default.",
        ],
        figures=[_figure(dice, grid["convs"], norm, "mean Dice over test cases") for norm in NORMS]
        + [_figure(loss, grid["convs"], norm, "training loss, last 20 steps") for norm in NORMS],
        tables=[
            table_of(dice, "Mean Dice with 95 % interval over replicates"),
            table_of(loss, "Training loss, last 20 steps"),
            _parameters(replicates(found, "parameters")),
        ],
    )  # fmt: skip


def _parameters(values: Values) -> Table:
    """Parameters of every network, which all replicates share."""
    rows = [[row, *(by_short[short][0] for short in SHORTS)] for row, by_short in values.items()]
    return Table("Parameters", ["", *SHORTS], rows)


def _figure(values: Values, convs: Sequence[int], norm: str, label: str) -> Figure:
    """A value against the convolutions in a block, one line for each short skip."""
    series: list[Series] = []
    for short in SHORTS:
        name = {"none": "plain"}.get(short, short)
        series.append(series_of(name, [values[_row(norm, each)][short] for each in convs], convs))
    title = f"{label[0].upper()}{label[1:]}, {norm}"
    return Figure("lines", title, "convolutions a block", label, series=series)


SUITE = Suite(
    name="s07-depth",
    title="Degradation with depth",
    claim=(
        "They preserve important information from earlier layers and make it possible to train much deeper networks "
        "effectively."
    ),
    pass_rule=(
        "With batch norm, going from the fewest to the most convolutions a block costs the plain U-Net more Dice "
        "than the one with additive short skips: the interaction is below 0 with its whole 95 % interval over "
        "replicates."
    ),
    grid={
        "smoke": {"convs": [2, 6], "seeds": 1, "steps": 38},
        "cpu": {"convs": [2, 4, 6], "seeds": 8, "steps": 150},
        "gpu": {"convs": [2, 4, 6, 10], "seeds": 20, "steps": 1000},
    },
    cells=_cells,
    run=_run,
    judge=_judge,
)
