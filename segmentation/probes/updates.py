"""Update map M: how far each layer moved in each epoch of the training.

    mean update    M_{l,t} = mean |dW_l| over the weights of layer l and the steps of epoch t
                   (Drozdzal et al. 2016, arXiv:1608.04117, figure of the update distribution)
    update ratio   U_{l,t} = mean over the steps of ||dW_l|| / ||W_l||
    gradient       G_{l,t} = mean over the steps of ||g_l|| / sqrt(n_l), before clipping

dW is the step as it is stored in float32: what rounding swallows counts as no update. The optimiser is part of the
measure: AdamW makes steps of nearly one size wherever the gradient is well above its eps, so that its map is flat
where that of SGD shows who learns. Layers stand in the order in which the network computes them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from segmentation import SkipSegError
from segmentation.figures import Figure
from segmentation.probes.context import NotMeasurableError, ProbeContext, ProbeResult
from segmentation.runs import read_csv
from segmentation.training.updates import MEASURES

TITLES = {
    "mean_update": ("Mean update of each layer in each epoch", "mean |dW|"),
    "update_ratio": ("Relative update of each layer in each epoch", "||dW|| / ||W||"),
    "rms_gradient": ("RMS gradient of each layer in each epoch", "G"),
}


@dataclass(frozen=True)
class UpdateMap:
    """The record of a training.

    Attributes:
        layers: Names, from input to output.
        epochs: Numbers.
        measures: ``"mean_update"``, ``"update_ratio"`` and ``"rms_gradient"``, each one row a layer and one column
            an epoch; ``None`` where a ratio has no value.
    """

    layers: Sequence[str]
    epochs: Sequence[int]
    measures: dict[str, list[list[float | None]]]


def read_updates(run: Path) -> UpdateMap:
    """Read updates.csv of a run.

    Raises:
        NotMeasurableError: If the run has none.
        SkipSegError: If rows are missing or damaged.
    """
    path = run / "updates.csv"
    if not path.is_file():
        raise NotMeasurableError(f"{run} has no updates.csv; train with --track_updates")
    rows = read_csv(path)
    try:
        layers = list(dict.fromkeys(row["layer"] for row in rows))
        epochs = list(dict.fromkeys(row["epoch"] for row in rows))
        cells = {(row["layer"], row["epoch"]): row for row in rows}
        measures = {
            name: [[_number(cells[layer, epoch][name]) for epoch in epochs] for layer in layers] for name in MEASURES
        }
        return UpdateMap(layers, [int(epoch) for epoch in epochs], measures)
    except (KeyError, ValueError) as error:
        raise SkipSegError(f"{path} is damaged ({error}); train again in another folder") from None


def _number(text: str) -> float | None:
    """A field of the table."""
    return float(text) if text else None


def probe(context: ProbeContext) -> ProbeResult:
    """Draw the update map that the training recorded."""
    found = read_updates(context.folder)
    optim = context.settings.optim
    values = {"layers": found.layers, "epochs": found.epochs, **found.measures, "optimizer": optim.optimizer}
    figures = [
        Figure(
            "heatmap",
            title,
            x_label="epoch",
            y_label="layer, from input to output",
            rows=found.layers,
            ticks=[str(epoch) for epoch in found.epochs],
            values=found.measures[name],
            value_label=label,
            log_y=True,
        )
        for name, (title, label) in TITLES.items()
    ]
    note = (
        f"Updates by {optim.optimizer}. With short skip connections updates spread over all layers, with long ones "
        "alone the centre gets few, say Drozdzal et al.; look along a column. The learning rate follows its schedule "
        "along each row."
    )
    return ProbeResult(values, figures, note)
