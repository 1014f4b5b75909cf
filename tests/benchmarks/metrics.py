"""Score pairs of label maps: Dice, HD95, ASSD and surface Dice of two structures, one thread, one pair in turn by each.

MONAI defines all four as we do, and surface-distance two of them: its HD95 and its mean distance weigh every surface
element by its area, ours count boundary voxels. What is defined alike is compared, pair by pair, before anything is
timed. Where one mask is empty the distances have no common definition; Dice and surface Dice are 0 for all.

Ours is the function behind ``skipseg evaluate``, with all else that it finds (volumes, lesions, sensitivity). Masks
of single structures and one-hot tensors are handed to the peers ready-made.
"""

import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from unittest import mock

import numpy as np
import surface_distance
import torch
from monai.metrics import (
    compute_average_surface_distance,
    compute_dice,
    compute_hausdorff_distance,
    compute_surface_dice,
)
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from segmentation.metrics import score_case
from tests.benchmarks.rows import Options, Row, run
from tests.benchmarks.worker import take_turns

Map = NDArray[np.uint8]
Score = tuple[float, float, float, float]
"""Dice, HD95, ASSD and surface Dice of one structure."""

LABELS = {"organ": 1, "lesion": 2}
TOLERANCE_MM = 2.0
SPACINGS_MM = ((1.0, 1.0, 1.0), (0.8, 0.8, 2.5), (3.0, 0.7, 0.7), (1.5, 1.5, 1.5))
WORK = {"small": (4, (32, 40, 32)), "full": (100, (96, 128, 96))}
"""Number of pairs and voxels along each axis."""
TARGET = 0.2


@dataclass(frozen=True)
class Pair:
    """Two label maps of shape ``(*S)`` on one grid."""

    prediction: Map
    reference: Map
    spacing_mm: tuple[float, ...]


def make_pair(seed: int, shape: Sequence[int]) -> Pair:
    """Draw an organ with lesions, and a prediction that errs along every border.

    The organ is by turns a solid, a shell, a vessel along the second axis, and a lobed body. Some lesions are missed;
    in one pair of ten the prediction has none, in one of twenty neither map has.
    """
    rng = np.random.default_rng(seed)
    centre, radii = rng.uniform(0.45, 0.55, 3), rng.uniform(0.18, 0.36, 3)
    form = seed % 4
    level = _level(shape, centre, (radii[0] / 3, math.inf, radii[2] / 3) if form == 2 else radii)
    if form == 1:
        level = np.abs(level - 0.85) / 0.12
    level += (0.3 if form == 3 else 0.15) * _noise(shape, 16, rng)
    errors = 0.08 * _noise(shape, 6, rng), 0.05 * _noise(shape, 6, rng)
    maps = [(level + error < 1).astype(np.uint8) for error in errors]
    for _ in range(rng.integers(1, 8) if seed % 20 != 19 else 0):
        lesion = _level(shape, centre + rng.uniform(-0.6, 0.6, 3) * radii, rng.uniform(0.03, 0.08, 3))
        for label_map, error in zip(maps if rng.random() > 0.15 else maps[1:], errors[::-1], strict=False):
            label_map[lesion + 2 * error < 1] = 2
    if seed % 10 == 9:
        maps[0][maps[0] == 2] = 0
    return Pair(maps[0], maps[1], SPACINGS_MM[rng.integers(len(SPACINGS_MM))])


def ours(pair: Pair) -> list[Score]:
    """Both structures, by what ``skipseg evaluate`` calls."""
    rows = score_case(pair.prediction, pair.reference, pair.spacing_mm, LABELS, None, TOLERANCE_MM)
    return [(row["dice"], row["hd95_mm"], row["assd_mm"], row["nsd"]) for row in rows]


def masks(pair: Pair) -> list[tuple[NDArray[np.bool_], NDArray[np.bool_], tuple[float, ...]]]:
    """What surface-distance takes: the masks of each structure, shape ``(*S)``."""
    return [(pair.reference == value, pair.prediction == value, pair.spacing_mm) for value in LABELS.values()]


def by_surface_distance(given: Sequence[tuple[NDArray[np.bool_], NDArray[np.bool_], tuple[float, ...]]]) -> list[Score]:
    """Both structures, distances found once for all scores, as its documentation shows."""
    scores: list[Score] = []
    for reference, prediction, spacing_mm in given:
        found = surface_distance.compute_surface_distances(reference, prediction, spacing_mm)
        scores.append(
            (
                surface_distance.compute_dice_coefficient(reference, prediction),
                surface_distance.compute_robust_hausdorff(found, 95),
                float(np.mean(surface_distance.compute_average_surface_distance(found))),
                surface_distance.compute_surface_dice_at_tolerance(found, TOLERANCE_MM),
            )
        )
    return scores


def one_hot(pair: Pair) -> tuple[torch.Tensor, torch.Tensor, tuple[float, ...]]:
    """What MONAI takes: a batch of one, a channel for each class, shape ``(1, 3, *S)``."""
    classes = range(len(LABELS) + 1)
    prediction, reference = (
        torch.from_numpy(np.stack([label_map == value for value in classes]))[None].float()
        for label_map in (pair.prediction, pair.reference)
    )
    return prediction, reference, pair.spacing_mm


def by_monai(given: tuple[torch.Tensor, torch.Tensor, tuple[float, ...]]) -> list[Score]:
    """Both structures, a function for each score."""
    prediction, reference, spacing = given
    tolerances = [TOLERANCE_MM] * len(LABELS)
    scores = (
        compute_dice(prediction, reference, include_background=False),
        compute_hausdorff_distance(prediction, reference, percentile=95, spacing=spacing),
        compute_average_surface_distance(prediction, reference, symmetric=True, spacing=spacing),
        compute_surface_dice(prediction, reference, tolerances, spacing=spacing, use_subvoxels=True),
    )
    return [tuple(row) for row in torch.stack(scores, dim=-1)[0].tolist()]


def boxes(pair: Pair) -> list[tuple[NDArray[np.bool_], tuple[float, ...]]]:
    """For the floor: the box around each structure in both maps, what lies outside the reference, shape ``(*S)``."""
    cut: list[tuple[NDArray[np.bool_], tuple[float, ...]]] = []
    for reference, prediction, spacing_mm in masks(pair):
        cut += [(~reference[box], spacing_mm) for box in ndimage.find_objects((reference | prediction).astype(int))]
    return cut


def one_transform(given: Sequence[tuple[NDArray[np.bool_], tuple[float, ...]]]) -> None:
    """The floor: one Euclidean distance transform for each structure, half of what one way there and back takes."""
    for outside, spacing_mm in given:
        ndimage.distance_transform_edt(outside, sampling=spacing_mm)


PROGRAMS: dict[str, tuple[Callable[[Pair], object], Callable[..., object]]] = {
    "ours": (lambda pair: pair, ours),
    "surface-distance": (masks, by_surface_distance),
    "MONAI": (one_hot, by_monai),
    "floor": (boxes, one_transform),
}
"""What makes a program's input, not timed, and the program."""


def rows(options: Options) -> list[Row]:
    """Compare, then time."""
    count, shape = WORK[options.size]
    pairs = [make_pair(seed, shape) for seed in range(count)]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    # surface-distance 0.1, the only release, uses names that NumPy 2 has not: they are what empty masks score.
    with mock.patch.multiple(np, create=True, Inf=np.inf, NaN=np.nan), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of empty masks
        try:
            compare(pairs)
            spent = take_turns({"all": lambda: time_all(pairs)}, options.repeats, warm_up=0)["all"]
        finally:
            torch.set_num_threads(threads)
    work = f"Dice, HD95, ASSD, NSD of {count} pairs {'x'.join(map(str, shape))}"
    return [
        Row(work, spent["ours"], "ms", spent[peer], peer, TARGET, floor=spent["floor"])
        for peer in ("surface-distance", "MONAI")
    ]


def compare(pairs: Sequence[Pair]) -> None:
    """Check that the scores that are defined alike agree.

    Raises:
        SystemExit: If they do not.
    """
    for number, pair in enumerate(pairs):
        for own, theirs, google in zip(
            ours(pair), by_monai(one_hot(pair)), by_surface_distance(masks(pair)), strict=True
        ):
            both = math.isfinite(theirs[1])  # MONAI's distances are not finite where a mask is empty
            # MONAI computes in single precision.
            equal = np.allclose(own[::3], theirs[::3], rtol=1e-5, atol=1e-5, equal_nan=True)
            equal &= not both or np.allclose(own[1:3], theirs[1:3], rtol=1e-5)
            equal &= np.allclose(own[::3], google[::3], rtol=0, atol=1e-9, equal_nan=True)
            if not equal:
                raise SystemExit(f"pair {number}: ours {own}, MONAI {theirs}, surface-distance {google}")


def time_all(pairs: Sequence[Pair]) -> Mapping[str, float]:
    """CPU time of each program in ms a pair; they take turns at every pair."""
    spent = dict.fromkeys(PROGRAMS, 0.0)
    for pair in pairs:
        for name, (prepare, program) in PROGRAMS.items():
            given = prepare(pair)
            begun = time.process_time()
            program(given)
            spent[name] += 1000 * (time.process_time() - begun) / len(pairs)
    return spent


def _level(shape: Sequence[int], centre: ArrayLike, radii: ArrayLike) -> NDArray[np.float64]:
    """Distance from ``centre`` in units of ``radii``, both as shares of the volume, shape ``shape``."""
    axes = [
        (((np.arange(size) + 0.5) / size - middle) / radius) ** 2
        for size, middle, radius in zip(shape, np.asarray(centre), np.asarray(radii), strict=True)
    ]
    return np.sqrt(np.add.outer(np.add.outer(axes[0], axes[1]), axes[2]))


def _noise(shape: Sequence[int], scale: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Smooth noise: one draw for each ``scale`` voxels, linear between them."""
    coarse = [max(2, size // scale) for size in shape]
    return np.asarray(ndimage.zoom(rng.standard_normal(coarse), np.divide(shape, coarse), order=1), np.float64)


if __name__ == "__main__":
    raise SystemExit(run(rows))
