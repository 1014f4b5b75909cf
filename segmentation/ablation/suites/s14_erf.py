"""s14: context and detail: how far does a network look, and how sharply at the middle?"""

import math
from dataclasses import replace
from typing import Any

import numpy as np

from segmentation.ablation.suites.bench import DEFAULTS, fit, make_network, make_pictures
from segmentation.ablation.suites.suite import (
    Cell,
    Findings,
    Found,
    Readout,
    Suite,
    Table,
    above,
    below,
    gain,
    replicates,
)
from segmentation.ablation.suites.views import bars_of, series_of, table_of
from segmentation.config import NetworkSettings
from segmentation.figures import Figure, Series
from segmentation.model.layers import layers
from segmentation.plain import from_plain
from segmentation.probes.modes import settle
from segmentation.probes.receptive_field import CENTRE_VOXELS, centre_profile, describe_field, effective_field

LONGS = ("none", "concat")
SHORTS = ("none", "add")
SIZE = 48
BLOB: dict[str, Any] = {"task": "blob", "noise": 0.3}
WHEN = ("at the start", "after training")
ByShortAndLong = dict[str, dict[str, list[float]]]


def _cells(grid: Any) -> list[dict[str, Any]]:
    return [
        {
            "network": {"long_skip": long, "short_skip": short},
            "inputs": grid["inputs"],
            "seed": seed,
            "steps": grid["steps"],
            "of": [f"short {short}", long],
        }
        for seed in range(grid["seeds"])
        for short in SHORTS
        for long in LONGS
    ]


def _run(cell: Cell) -> dict[str, Any]:
    data = make_pictures(seed=cell["seed"], size=SIZE, **BLOB)
    network = make_network(cell["seed"], **cell["network"])

    def field() -> Any:
        return effective_field(network, 1, (SIZE, SIZE), cell["inputs"], cell["seed"])

    settle(network, [(data.images, data.labels)])
    start = field()
    fit(network, data.images, data.labels, cell["steps"], cell["seed"])
    end = field()
    found = {when: describe_field(each, (1.0, 1.0)) for when, each in zip(WHEN, (start, end), strict=True)}
    return {
        "field": (end / end.max()).round(6).tolist(),
        **{f"centre mass {when}": each.centre_mass for when, each in found.items()},
        **{f"radius {when}": each.radius_mm for when, each in found.items()},
    }


def _judge(found: Found, grid: Any) -> Findings:
    del grid
    mass = {when: replicates(found, f"centre mass {when}") for when in WHEN}
    radius = {when: replicates(found, f"radius {when}") for when in WHEN}
    start, end = WHEN
    return Findings(
        readouts=[
            *(_ratio(mass[end], short, f"{end}: centre mass", above) for short in mass[end]),
            *(_ratio(mass[start], short, f"{start}: centre mass", above, decides=False) for short in mass[start]),
            *(_ratio(radius[end], short, f"{end}: radius", below, decides=False) for short in radius[end]),
        ],
        reading=[
            "The field is the mean absolute gradient of the middle pixel's logits with respect to white-noise "
            f"images. Centre mass is the share of it within {CENTRE_VOXELS:g} pixels of the middle; the radius is "
            "that of a disc with the area where the field exceeds 0.0455 of its largest value. Ratios are geometric "
            "means over replicates; one above 1 says that long skips draw weight to the middle. The theoretical "
            f"field, which long skips leave as it is, is in the table; what reaches beyond the {SIZE} pixels of an "
            f"image is cut off, and a radius of {SIZE / math.pi**0.5:.1f} is the whole image.",
            "A sharp middle on top of a broad field is the picture of the claim: detail and context. The radius "
            "follows the largest value and so shrinks when a peak grows, even where the broad part stays as it was; "
            "the profile shows both. Each profile is divided by its own largest value.",
        ],
        figures=[_profiles(found), *_surfaces(found), bars_of(mass[end], "Centre mass after training", "share")],
        tables=[
            *(table_of(mass[when], f"Centre mass {when}") for when in WHEN),
            *(table_of(radius[when], f"Radius {when}, pixels") for when in WHEN),
            Table(
                "Theoretical field by long skip", ["", *LONGS], [["pixels wide", *(_theory(long) for long in LONGS)]]
            ),
        ],
    )


def _ratio(values: ByShortAndLong, short: str, name: str, expect: Any, decides: bool = True) -> Readout:
    """Geometric mean of the ratio of concat to none of one measure, expected above or below 1."""
    arms = values[short]
    logs = gain([math.log(value) for value in arms["concat"]], [math.log(value) for value in arms["none"]])
    found = expect(f"{short}, {name}, concat / none", f"{expect.__name__} 1", logs, 0.0, decides)
    value, low, high = (None if each is None else math.exp(each) for each in (found.value, found.low, found.high))
    return replace(found, value=value, low=low, high=high)


def _theory(long: str) -> int:
    """Pixels along an axis that the middle pixel's logits depend on at most."""
    settings = from_plain(NetworkSettings, DEFAULTS | {"long_skip": long})
    return next(each.field[0] for each in layers(settings, 2, 1, 2, size=(SIZE, SIZE)) if each.name == "heads.0")


def _fields(found: Found, short: str, long: str) -> Any:
    """Fields of the replicates of one arm, each with largest value 1."""
    return np.array([result["field"] for cell, result in found if cell["of"] == [short, long]])


def _profiles(found: Found) -> Figure:
    """Mean profile through the middle with interval over replicates."""
    series: list[Series] = []
    offsets = [float(index - SIZE // 2) for index in range(SIZE)]
    for short in SHORTS:
        for long in LONGS:
            lines = [centre_profile(field) for field in _fields(found, f"short {short}", long)]
            series.append(series_of(f"long {long}, short {short}", np.transpose(lines).tolist(), offsets))
    return Figure(
        "lines",
        "Effective receptive field through the middle, after training",
        "distance from the middle, pixels",
        "gradient, largest = 1",
        series,
    )


def _surfaces(found: Found) -> list[Figure]:
    """Mean field of the networks without short skips, by long skip."""
    places = [float(index - SIZE // 2) for index in range(SIZE)]
    return [
        Figure(
            "surface",
            f"Effective receptive field after training, long skip {long}",
            "pixels",
            "pixels",
            values=_fields(found, "short none", long).mean(axis=0).tolist(),
            x=places,
            y=places,
            value_label="mean |gradient|, largest = 1",
        )
        for long in LONGS
    ]


SUITE = Suite(
    name="s14-erf",
    title="Context and detail: the effective receptive field",
    claim=(
        "The feature maps from the encoder (which contain high-resolution details) are concatenated with the up "
        "sampled feature maps in the decoder, enabling the network to combine low-level (fine detail) and high-level "
        "(contextual) information."
    ),
    pass_rule=(
        "After training on blobs, the share of the effective receptive field near its middle is larger with concat "
        "than with none, without short skips and with add: the geometric mean of each ratio above 1 with its whole "
        "95 % interval over replicates."
    ),
    grid={
        "smoke": {"seeds": 1, "steps": 25, "inputs": 8},
        "cpu": {"seeds": 5, "steps": 100, "inputs": 16},
        "gpu": {"seeds": 10, "steps": 1000, "inputs": 64},
    },
    cells=_cells,
    run=_run,
    judge=_judge,
)
