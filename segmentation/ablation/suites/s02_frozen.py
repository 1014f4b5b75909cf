"""s02: a gradient of 1e-15 times a learning rate of 1e-4 is a step of 1e-19: early layers do not move."""

from typing import Any

from segmentation.ablation.suites.bench import dice_of, fit, loss_of, make_pictures, mean
from segmentation.ablation.suites.suite import Cell, Findings, Found, Suite, above, below, replicates
from segmentation.ablation.suites.views import bars_of, table_of
from segmentation.model.chain import Chain
from segmentation.probes.frozen import frozen_layers

SHORTS = ("none", "add", "dense")
RATE = 1e-4
"""The learning rate of the claim."""


def _cells(grid: Any) -> list[dict[str, Any]]:
    return [
        {
            "length": length,
            "short": short,
            "optimizer": optimizer,
            "steps": grid["steps"],
            "seed": seed,
            "of": [f"{length} layers, {optimizer}", short],
        }
        for seed in range(grid["seeds"])
        for length in grid["lengths"]
        for optimizer in ("sgd", "adam")
        for short in SHORTS
    ]


def _run(cell: Cell) -> dict[str, Any]:
    data = make_pictures("blob", cell["seed"], size=24)
    chain = Chain(cell["length"], 16, 1, 2, cell["short"], "sigmoid", "none", "torch", cell["seed"])
    kind = "sgd" if cell["optimizer"] == "sgd" else "adamw"
    layers = frozen_layers(chain, loss_of, [(data.images, data.labels)], kind, RATE)
    early = next(layer for layer in layers if layer.name.startswith("block.units.0."))
    rate = {"sgd": 1e-2, "adam": 1e-3}[cell["optimizer"]]
    losses = fit(chain, data.images, data.labels, cell["steps"], cell["seed"], rate, cell["optimizer"])
    return {
        "frozen": early.frozen,
        "step": early.log10_mean_step,
        "dice": mean(dice_of(chain, data.test_images, data.test_labels)),
        "loss": mean(losses[-10:]),
    }


def _judge(found: Found, grid: Any) -> Findings:
    deep = f"{grid['lengths'][-1]} layers, adam"
    deep_sgd = f"{grid['lengths'][-1]} layers, sgd"
    step, frozen, dice, loss = (replicates(found, key) for key in ("step", "frozen", "dice", "loss"))
    return Findings(
        readouts=[
            below(f"{deep}, plain: Dice", "below 0.1: it does not learn", dice[deep]["none"], 0.1),
            above(f"{deep}, add: Dice", "above 0.6", dice[deep]["add"], 0.6),
            below(
                f"{deep_sgd}, plain: log10 of learning rate times mean gradient, first layer",
                "about -19 (-18.5 in a pilot)",
                step[deep_sgd]["none"],
                -15.0,
            ),
            above(
                f"{deep_sgd}, plain: share of first-layer weights that a step leaves bit for bit",
                "about 1",
                frozen[deep_sgd]["none"],
                0.99,
            ),
            below(f"{deep_sgd}, add: the same share", "below 0.5", frozen[deep_sgd]["add"], 0.5, decides=False),
            below(
                f"{deep}, plain: the same share with Adam",
                "below 1: Adam divides the size away",
                frozen[deep]["none"],
                1.0,
                decides=False,
            ),
        ],
        reading=[
            f"Steps are measured at the start, at the learning rate of the claim, {RATE:g}. In float32 a weight "
            f"near 0.1 has its "
            "next neighbour 7.5e-9 away: a step of 1e-19 leaves it bit for bit as it was, so frozen can be counted.",
            "Adam divides the gradient by its own size and hides vanishing until the gradient comes near its eps of "
            "1e-8. The trainings use a learning rate of 1e-2 for SGD with momentum and 1e-3 for Adam, as one would; "
            "what stays at a Dice of 0 there is not stuck for want of a larger rate alone.",
        ],
        figures=[
            bars_of(step, "log10 of the mean step of the first layer", f"log10(rate x mean gradient), rate {RATE:g}"),
            bars_of(frozen, "Weights of the first layer that a step leaves bit for bit", "share"),
            bars_of(dice, "Dice after training", "mean Dice over test cases"),
        ],
        tables=[table_of(dice, "Dice after training"), table_of(loss, "Training loss, last ten steps")],
    )


SUITE = Suite(
    name="s02-frozen",
    title="Layers that do not move",
    claim=(
        "If the average gradient for an early layer is on the order of 1e-15 and the learning rate is 1e-4, the "
        "resulting weight update becomes 1e-19. Such minuscule updates lead to negligible changes in the model, "
        "effectively stalling the training process."
    ),
    pass_rule=(
        "In the deepest sigmoid chain the plain one ends with Dice below 0.1 and the one with add above 0.6; the "
        "plain one's first step under SGD is below 1e-15 on average and leaves more than 99 % of the first layer's "
        "weights bit for bit. Each with its whole 95 % interval over replicates."
    ),
    grid={
        "smoke": {"lengths": [4, 16], "seeds": 1, "steps": 40},
        "cpu": {"lengths": [4, 8, 16], "seeds": 5, "steps": 150},
        "gpu": {"lengths": [4, 8, 16, 32], "seeds": 10, "steps": 1000},
    },
    cells=_cells,
    run=_run,
    judge=_judge,
)
