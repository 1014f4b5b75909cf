"""Probes for the runs of a fake study: layers, levels, epochs and a plane, each with values of its own."""

import math

from segmentation.figures import Figure, Series
from segmentation.runs import read_json, write_json

LAYERS = ("encoder.0", "encoder.1", "bottleneck", "decoder.1", "decoder.0")


def add_probes(folder):
    """Write gradients, updates, landscape and, where there are skips, lesion and shapley into every finished run."""
    for entry in read_json(folder / "study.json")["runs"]:
        run = folder / "runs" / entry["id"]
        if (run / "evaluation").is_dir():
            factor = 1 + 0.1 * entry["seed"] + entry["fold"]
            values = {"start": {"V": -2.0 * factor}, "basin_radius": {"median": factor, "low": 0.25, "high": 77.0}}
            for kind, figures in _figures(factor, skips=entry["condition"] != "none").items():
                write_probe(run, kind, figures, values=values, note=f"V = {factor:.2f} decades; eps is 1e-8.")


def write_probe(run, kind, figures, **changes):
    """Write one probe as ``skipseg probe`` does."""
    content = {
        "kind": kind,
        "definition": "What is measured.\n\n    G = ||g||",
        "values": {"total": 1.5},
        "figures": [figure.to_plain() for figure in figures],
        "note": "",
        "settings": {"batches": 4, "cases": 2, "seed": 0},
    }
    write_json(run / "probes" / f"{kind}.json", content | changes)


def _figures(factor, *, skips):
    """Figures of each kind; values grow with ``factor``."""
    axis = [x / 5 - 1 for x in range(11)]
    plane = [[factor * math.exp(2 * (x * x + y * y)) for x in axis] for y in axis]
    gradients = [
        Series(when, [scale * factor * 10**-i for i in range(5)])
        for when, scale in (("at the start", 1e-2), ("after training", 1e-3))
    ]
    updates = [[factor * 10.0 ** -(i + j) for j in range(3)] for i in range(5)]
    found = {
        "gradients": [
            Figure(
                "lines", "RMS gradient in each block", "block, from input to output", "G", gradients, LAYERS,
                log_y=True,
            )
        ],
        "updates": [
            Figure(
                "heatmap", "Mean update of each layer", "epoch", "layer", rows=LAYERS, ticks=["0", "1", "2"],
                values=updates, value_label="mean |dW|", log_y=True,
            )
        ],
        "landscape": [
            Figure(
                "surface", "Loss in a plane of two directions", "first direction", "second direction", values=plane,
                x=axis, y=axis, value_label="loss", log_y=True, path=[(0.0, 0.0)],
            )
        ],
    }  # fmt: skip
    if skips:
        for kind, title in (
            ("lesion", "Dice lost when a long skip is replaced"),
            ("shapley", "Shapley value of each level's skip"),
        ):
            levels = [Series("mean over patients", [0.1 * factor, -0.02, 0.01], None, [0.0] * 3, [0.2 * factor] * 3)]
            found[kind] = [
                Figure("points", title, "change of Dice", ticks=["L0", "L1", "L2"], series=levels, reference=0.0)
            ]
    return found
