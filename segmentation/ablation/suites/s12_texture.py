"""s12: does the gain of long skips grow with the difficulty of a texture, as Kamath et al. report?"""

from collections.abc import Sequence
from typing import Any

from segmentation.ablation.suites.bench import DEFAULTS, Pictures, dice_of, fit, make_network, make_pictures, mean
from segmentation.ablation.suites.suite import Cell, Findings, Found, Suite, above, gain, replicates, within
from segmentation.ablation.suites.tost import equivalent
from segmentation.ablation.suites.views import bars_of, series_of, table_of
from segmentation.figures import Figure
from segmentation.probes.ceiling import ceilings
from segmentation.probes.complexity import texture_kl

ARMS = ("none", "concat", "gated")
TEXTURE: dict[str, Any] = {"task": "texture", "noise": 0.0}
"""Without white noise, which would be a texture of its own and hide that of the task from the measure of patterns."""
MARGIN = 0.02
"""Largest difference of Dice that does not matter."""
MEASURED = 16
"""Test images whose texture is measured."""
ByAlphaAndArm = dict[str, dict[str, list[float]]]


def _cells(grid: Any) -> list[dict[str, Any]]:
    return [
        {"alpha": alpha, "test_alphas": grid["alphas"], "arm": arm, "seed": seed, "steps": grid["steps"]}
        for seed in range(grid["seeds"])
        for alpha in grid["alphas"]
        for arm in ARMS
    ]


def pictures_at(alpha: float, seed: int) -> Pictures:
    """The texture task at a difficulty; for one seed, shapes and noise are the same at every difficulty."""
    return make_pictures(seed=seed, difficulty=alpha, **TEXTURE)


def _run(cell: Cell) -> dict[str, Any]:
    data = pictures_at(cell["alpha"], cell["seed"])
    network = make_network(cell["seed"], long_skip=cell["arm"])
    fit(network, data.images, data.labels, cell["steps"], cell["seed"])
    tests = [pictures_at(alpha, cell["seed"]) for alpha in cell["test_alphas"]]
    return {
        "dice": [mean(dice_of(network, test.test_images, test.test_labels)) for test in tests],
        "texture_kl": _texture(data),
        "ceiling": _ceiling(data),
    }


def _texture(data: Pictures) -> float:
    """Mean divergence of the local patterns inside and outside the structures of some test images."""
    pairs = zip(data.test_images[:MEASURED, 0].numpy(), data.test_labels[:MEASURED].numpy(), strict=True)
    return mean([texture_kl(image, labels == 1, labels >= 0) for image, labels in pairs])


def _ceiling(data: Pictures) -> float:
    """Mean Dice that the masks of some test images keep when they pass the size of the bottleneck."""
    strides = [(2, 2)] * DEFAULTS["depth"]
    return mean([float(ceilings(mask, strides, classes=2)[-1, 0]) for mask in data.test_labels[:MEASURED].numpy()])


def _judge(found: Found, grid: Any) -> Findings:
    alphas: list[float] = grid["alphas"]
    crossed = {tested: replicates(_tested_at(found, index), "dice") for index, tested in enumerate(alphas)}
    own: ByAlphaAndArm = {_name(alpha): crossed[alpha][_name(alpha)] for alpha in alphas}
    easy, hard = own[_name(alphas[0])], own[_name(alphas[-1])]
    names = _name(alphas[0]), _name(alphas[-1])
    ceiling = _measured(found, "ceiling")[names[0]]["all"]
    return Findings(
        readouts=[
            equivalent(f"{names[0]}: Dice, concat minus none", gain(easy["concat"], easy["none"]), MARGIN),
            above(
                f"{names[1]}: Dice, concat minus none",
                "uncertain here; above 0 in the paper",
                gain(hard["concat"], hard["none"]),
                0.0,
                decides=False,
            ),
            above(
                "gain of concat at the hard end less that at the easy end",
                "above 0 in the paper",
                gain(gain(hard["concat"], hard["none"]), gain(easy["concat"], easy["none"])),
                0.0,
                decides=False,
            ),
            above(
                f"{names[1]}: Dice, gated minus concat",
                "above 0 in the paper",
                gain(hard["gated"], hard["concat"]),
                0.0,
                decides=False,
            ),
            within(
                f"{names[0]}: Dice of none minus that of the masks themselves at the resolution of the bottleneck",
                "about 0 where the outline is what none loses",
                gain(easy["none"], ceiling),
                -0.05,
                0.05,
                decides=False,
            ),
        ],
        reading=[
            "Alpha is the difficulty of the texture task: inside the structure a fine texture is blended with the "
            "coarse one of the surroundings by 0.95 alpha, of equal mean and variance. Higher is harder, as in the "
            "authors' data; the alpha axis of their figure runs the other way. Their own measure of complexity, the "
            "divergence of local binary patterns inside and outside (smaller is harder), is given in the table; no "
            "white noise is added.",
            "The verdict rests on the equivalence at the easy end alone; the rest is a curve with intervals. The "
            "benefit of a skip on this task is made of two parts: finding the structure, which alpha makes harder, "
            "and drawing its outline through a map of an eighth of the resolution, which alpha does not change. A "
            "structure here is some ten pixels in radius, where the paper's images have 256 pixels along each axis, "
            "so the second part is larger here: the masks themselves, shrunk to the bottleneck and enlarged again, "
            f"keep a Dice of {mean(ceiling):.3f}. Parameters are not matched: gated has most, none fewest.",
        ],
        figures=[
            _curve(alphas, own),
            _gains(alphas, own),
            _cross(alphas, crossed),
            bars_of(own, "Dice by difficulty and long skip", "mean Dice over test cases"),
        ],
        tables=[
            table_of(own, "Mean Dice with 95 % interval over replicates, trained and tested at the same alpha"),
            table_of(_measured(found, "texture_kl"), "Divergence of local binary patterns inside and outside, nats"),
        ],
    )


def _name(alpha: float) -> str:
    return f"alpha {alpha:g}"


def _tested_at(found: Found, index: int) -> Found:
    """Cells by alpha of training and arm, with the Dice at one of the alphas of testing."""
    return [
        ({"of": [_name(cell["alpha"]), cell["arm"]], "seed": cell["seed"]}, {"dice": result["dice"][index]})
        for cell, result in found
    ]


def _measured(found: Found, key: str) -> ByAlphaAndArm:
    """A measure of the test images, which all arms share, by alpha: one value a replicate."""
    cells = [({"of": [_name(c["alpha"]), "all"], "seed": c["seed"]}, r) for c, r in found if c["arm"] == ARMS[0]]
    return replicates(cells, key)


def _curve(alphas: Sequence[float], own: ByAlphaAndArm) -> Figure:
    """Dice over the difficulty."""
    series = [series_of(arm, [own[_name(alpha)][arm] for alpha in alphas], alphas) for arm in ARMS]
    return Figure("lines", "Dice over the difficulty of the texture", "alpha, higher is harder", "mean Dice", series)


def _gains(alphas: Sequence[float], own: ByAlphaAndArm) -> Figure:
    """Gain over none by the difficulty."""
    arms = [own[_name(alpha)] for alpha in alphas]
    series = [series_of(arm, [gain(each[arm], each["none"]) for each in arms], alphas) for arm in ARMS[1:]]
    title = "Gain of long skips over none, by the difficulty"
    return Figure("lines", title, "alpha, higher is harder", "gain in Dice", series, reference=0.0)


def _cross(alphas: Sequence[float], crossed: dict[float, ByAlphaAndArm]) -> Figure:
    """Gain of concat for every pair of training and testing."""
    rows = [
        [mean(gain(arms["concat"], arms["none"])) for arms in (crossed[test][_name(train)] for test in alphas)]
        for train in alphas
    ]
    return Figure(
        "heatmap",
        "Gain of concat over none, trained at one difficulty and tested at another",
        "tested at",
        "trained at",
        ticks=[_name(alpha) for alpha in alphas],
        rows=[_name(alpha) for alpha in alphas],
        values=rows,
        value_label="gain in Dice",
        reference=0.0,
    )


SUITE = Suite(
    name="s12-texture",
    title="The gain by the difficulty of a texture",
    claim=(
        "The benefit of skip connections is small for tasks of low to medium texture complexity and appears only "
        "when the complexity becomes large; attention gates bring more of it (after Kamath et al. 2023, "
        "doi:10.1007/978-3-031-43901-8_29)."
    ),
    pass_rule=(
        f"At the easiest texture concat and none are equivalent within {MARGIN} Dice (TOST at 5 %: the whole 90 % "
        "interval of the paired difference over replicates inside the margin). The other difficulties are reported "
        "without a rule."
    ),
    grid={
        "smoke": {"alphas": [0.1, 0.5, 0.8, 0.9], "seeds": 1, "steps": 50},
        "cpu": {"alphas": [0.1, 0.5, 0.8, 0.9], "seeds": 8, "steps": 200},
        "gpu": {"alphas": [0.1, 0.5, 0.8, 0.9], "seeds": 20, "steps": 1000},
    },
    cells=_cells,
    run=_run,
    judge=_judge,
)
