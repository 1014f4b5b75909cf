"""s00: the chain rule on z = (w3 w2 + 1) w1 x, where every derivative can be written down."""

from typing import Any

import torch

from segmentation.ablation.suites.suite import Cell, Findings, Found, Suite, Table, exactly
from segmentation.figures import Figure, Series

PARTS = ("w1", "w2", "w3")


def derivatives(weight: float, x: float, skip: bool) -> dict[str, list[float]]:
    """Derivatives of z = w3 w2 w1 x, or with a skip z = (w3 w2 + 1) w1 x, three ways.

    Args:
        weight: Value of w1, w2 and w3.
        x: Input.
        skip: Add w1 x to the output, that is ``y = h + F(h)`` with ``h = w1 x`` and ``F(h) = w3 w2 h``.

    Returns:
        dz/dw1, dz/dw2 and dz/dw3: by ``autograd``, by the ``formula``, and by central ``difference`` with a step of
        1e-4 of the weight.

    Examples:
        >>> derivatives(0.01, 1.0, skip=True)["formula"][0]
        1.0001
    """
    weights = [torch.tensor(weight, dtype=torch.float64, requires_grad=True) for _ in PARTS]
    automatic = [float(g) for g in torch.autograd.grad(_chain(weights, x, skip), weights)]
    one = 1.0 if skip else 0.0
    formula = [(weight * weight + one) * x, weight * weight * x, weight * weight * x]
    difference: list[float] = []
    for index in range(len(PARTS)):
        step = 1e-4 * weight
        ends: list[float] = []
        for sign in (1, -1):
            moved = [weight + sign * step if i == index else weight for i in range(len(PARTS))]
            ends.append(float(_chain(moved, x, skip)))
        difference.append((ends[0] - ends[1]) / (2 * step))
    return {"autograd": automatic, "formula": formula, "difference": difference}


def _chain(weights: Any, x: float, skip: bool) -> Any:
    """The value z."""
    w1, w2, w3 = weights
    h = w1 * x
    return w3 * w2 * h + h if skip else w3 * w2 * h


def _cells(grid: Any) -> list[dict[str, Any]]:
    return [{"weight": weight, "x": 1.0, "skip": skip} for weight in grid["weights"] for skip in (False, True)]


def _run(cell: Cell) -> dict[str, Any]:
    return derivatives(cell["weight"], cell["x"], cell["skip"])


def _judge(found: Found, grid: Any) -> Findings:
    del grid
    wrong = max(
        abs(result[way][i] - result["formula"][i]) / abs(result["formula"][i])
        for _, result in found
        for way in ("autograd", "difference")
        for i in range(len(PARTS))
    )
    small = min(cell["weight"] for cell, _ in found)
    plain, skip = (
        next(r["autograd"] for c, r in found if c["weight"] == small and c["skip"] is wanted)
        for wanted in (False, True)
    )
    rows = [[f"{cell['weight']:g}", "yes" if cell["skip"] else "no", *result["autograd"]] for cell, result in found]
    bars = [Series("plain", plain), Series("with skip", skip)]
    return Findings(
        readouts=[
            exactly("largest relative error of autograd and difference", "below 1e-6", wrong, wrong < 1e-6),
            exactly(f"dz/dw1 without skip at w = {small:g}", f"{small**2:g} x", plain[0], plain[0] < 1e-3),
            exactly(f"dz/dw1 with skip at w = {small:g}", "about x", skip[0], abs(skip[0] - 1) < 1e-3),
            exactly(
                "dz/dw2 with skip over without",
                "1: the skip does nothing for w2",
                skip[1] / plain[1],
                abs(skip[1] / plain[1] - 1) < 1e-9,
            ),
        ],
        reading=[
            "The formula is exact: with the skip, dz/dw1 = (w3 w2 + 1) x stays near x however small the weights are.",
            "It is half of the story. dz/dw2 = w3 w1 x and dz/dw3 = w2 w1 x hold no + 1: the layers inside the "
            "skipped branch receive gradients as small as before. A skip rescues what lies before it, not what it "
            "skips.",
        ],
        figures=[
            Figure(
                "bars",
                f"Derivatives at w = {small:g}, x = 1",
                y_label="derivative of z",
                ticks=[f"dz/d{p}" for p in PARTS],
                series=bars,
                log_y=True,
            )
        ],
        tables=[Table("Derivatives by autograd", ["w", "skip", *[f"dz/d{part}" for part in PARTS]], rows)],
    )


SUITE = Suite(
    name="s00-scalar-chain",
    title="The chain rule and the + 1",
    claim=(
        "If w3 or w2 is small the gradient signal telling w1 in which way to change does not reach w1. Solution: "
        "link w1 to z directly, via a skip connection: z = (w3 w2 + 1) w1 input."
    ),
    pass_rule=(
        "autograd, the formula and finite differences agree within a relative 1e-6; with all weights at 0.01, dz/dw1 "
        "is about x with the skip and 1e-4 x without; dz/dw2 is the same with and without."
    ),
    grid={size: {"weights": [1.0, 0.1, 0.01]} for size in ("smoke", "cpu", "gpu")},
    cells=_cells,
    run=_run,
    judge=_judge,
)
