"""Where scores scatter: between patients, between seeds, between folds, or within.

The components of variance are those of the model ``score = mean + fold + patient + seed + run + residual``, where a
patient belongs to one fold, a run is one training (one seed in one fold), and all terms are random and independent.
They are estimated by the method of moments: mean squares are set equal to their expectations (Henderson 1953; Searle,
Casella and McCulloch 1992, chapter 4), which is unbiased for any distribution and any number of patients a fold.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segmentation import SkipSegError
from segmentation.statistics.hierarchical import Array


@dataclass(frozen=True)
class VarianceSplit:
    """Components of the variance of a score, in its unit squared; None where the design cannot tell.

    The estimates are unbiased, so one whose true value is near 0 may come out below 0.

    Attributes:
        patient: Between patients of a fold.
        seed: Between seeds, common to all folds; with one fold it is the whole luck of a training.
        fold: Between folds: their training sets and the difficulty of their patients as a group.
        run: Between trainings, beyond fold and seed; needs two folds and two seeds.
        residual: Of a patient under a seed; with one seed it is part of ``patient``.
        patients, seeds, folds: Number of each that the estimates rest on.
    """

    patient: float | None
    seed: float | None
    fold: float | None
    run: float | None
    residual: float | None
    patients: int
    seeds: int
    folds: int

    @property
    def separable(self) -> bool:
        """Whether any component could be estimated."""
        return bool(self.sd)

    @property
    def sd(self) -> dict[str, float]:
        """Standard deviation of each known component, in the unit of the score; one below 0 counts as 0."""
        parts = {name: asdict(self)[name] for name in ("patient", "seed", "fold", "run", "residual")}
        return {name: max(0.0, value) ** 0.5 for name, value in parts.items() if value is not None}

    @property
    def shares(self) -> dict[str, float]:
        """Share of each known component in the whole, those below 0 counted as 0; empty without any variance."""
        whole = sum(value**2 for value in self.sd.values())
        return {name: value**2 / whole for name, value in self.sd.items()} if whole > 0 else {}


def variance_split(values: Array, folds: Sequence[int] | None = None) -> VarianceSplit:
    """Split the variance of scores, or of paired differences, into its components.

    Args:
        values: One value for each patient and seed, shape ``(n, S)``; nan where one is missing. A seed that
            lacks a patient is left out, unless no seed has all of them; then so is a patient that lacks a seed.
        folds: Fold that each patient was held out in; by default all in one.

    Returns:
        The components. Those that the design cannot tell are None: with one patient a fold ``fold`` holds the
        patients too, and ``patient`` is None. All are None if no patient has all seeds and no seed all patients,
        as where each seed ran one fold.

    Raises:
        SkipSegError: If the table is empty, or ``folds`` has another length.

    Examples:
        Two patients, two seeds, no scatter but theirs:

        >>> split = variance_split(np.array([[0.5, 0.7], [0.9, 1.1]]))
        >>> round(split.patient, 3), round(split.seed, 3), round(split.residual, 3)
        (0.08, 0.02, 0.0)
    """
    groups = np.zeros(len(values), np.int64) if folds is None else np.asarray(folds)
    if values.ndim != 2 or values.size == 0 or len(groups) != len(values):
        raise SkipSegError(
            f"need patients by seeds and a fold a patient, got shape {values.shape}, {len(groups)} folds"
        )
    table, kept = _complete(values, groups)
    if not len(table):
        return VarianceSplit(None, None, None, None, None, len(values), values.shape[1], len(np.unique(groups)))
    groups = kept
    names, index = np.unique(groups, return_inverse=True)
    (n, seeds), count = table.shape, len(names)
    means = np.array([table[index == fold].mean(axis=0) for fold in range(count)]).reshape(count, seeds)
    single = float(np.mean(1 / np.bincount(index)))  # of a fold's mean, in variances of one patient
    within = table - means[index]
    residual = _over((within - within.mean(axis=1, keepdims=True)) ** 2, (n - count) * (seeds - 1))
    patient = _less(_over(within.mean(axis=1) ** 2, n - count), (residual, 1 / max(1, seeds)))
    by_run = means - means.mean(axis=1, keepdims=True) - means.mean(axis=0) + means.mean()
    scatter = _over(by_run**2, (count - 1) * (seeds - 1))  # a run with the residuals of its patients
    run = _less(scatter, (residual, single))
    below = scatter if count > 1 else None if residual is None else residual * single
    seed = _less(_over((means.mean(axis=0) - means.mean()) ** 2, seeds - 1), (below, 1 / max(1, count)))
    fold = _over((means.mean(axis=1) - means.mean()) ** 2, count - 1)
    fold = _less(fold, (patient, single), (scatter if seeds > 1 else 0.0, 1 / max(1, seeds)))
    return VarianceSplit(patient, seed, fold, run, residual, n, seeds, count)


def _complete(values: Array, folds: NDArray[Any]) -> tuple[Array, NDArray[Any]]:
    """Keep the seeds that all patients have; without such a seed, the patients that have all seeds."""
    known = ~np.isnan(values)
    if known.all(axis=0).any():
        return values[:, known.all(axis=0)], folds
    return values[known.all(axis=1)], folds[known.all(axis=1)]


def _over(squares: Array, freedom: int) -> float | None:
    """Mean square, or None without a degree of freedom."""
    return float(squares.sum()) / freedom if freedom > 0 else None


def _less(mean_square: float | None, *parts: tuple[float | None, float]) -> float | None:
    """Subtract the components that a mean square holds besides the wanted one; an unknown one stays in it."""
    return None if mean_square is None else mean_square - sum(factor * (part or 0.0) for part, factor in parts)
