"""Second opinions on a paired comparison: none of them decides, each shows another side."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean

from segmentation.statistics.bootstrap import Interval
from segmentation.statistics.hierarchical import hierarchical_p
from segmentation.statistics.mixed import MixedModel, mixed_model
from segmentation.statistics.paired import POWER, Aligned, Scores, aligned, detectable_difference
from segmentation.statistics.permutation import fewest_patients, wilcoxon_p
from segmentation.statistics.power import cases_needed, cases_to_exclude
from segmentation.statistics.probability import superiority
from segmentation.statistics.resampled import CorrectedT, corrected_resampled_t
from segmentation.statistics.seed_power import Spread, cases_needed_with_seeds, cases_to_exclude_with_seeds

PLANNED_SEEDS = (3, 5, 10)
"""Numbers of seeds for which the cases needed are given, besides the number at hand."""


@dataclass(frozen=True)
class Checks:
    """What else can be said about a paired comparison.

    Attributes:
        wilcoxon_p: Of Wilcoxon's signed-rank test over patients, which takes the trained networks as given.
        hierarchical_p: Of the test over patients and seeds, or over groups of patients; None with one seed.
        superiority: P(A>B), the probability that a patient scores higher under a.
        spread: Standard deviations of the differences; None where the seeds cannot tell them apart.
        detectable: Smallest true difference that is found with probability 0.8; None if it cannot be told, and with
            too few patients for any p-value of at most ``alpha``.
        cases_needed: Number of seeds to the number of patients that find a true difference of the margin with
            probability 0.8; None where no number suffices. Empty without a margin.
        cases_to_exclude: The same for the patients that show with probability 0.8 that conditions which do not
            differ are equivalent.
        corrected_t: Of the folds as replicates; None with one fold.
        mixed: The linear mixed model; None where it was not asked for.
    """

    wilcoxon_p: float
    hierarchical_p: float | None
    superiority: Interval
    spread: Spread | None
    detectable: float | None
    cases_needed: dict[str, int | None]
    cases_to_exclude: dict[str, int | None]
    corrected_t: CorrectedT | None
    mixed: MixedModel | None


def checks(
    a: Scores,
    b: Scores,
    *,
    alpha: float = 0.05,
    margin: float | None = None,
    folds: Mapping[str, int] | None = None,
    test_share: float | None = None,
    mixed: bool = False,
    equivalence_alpha: float | None = None,
) -> Checks:
    """Compute the second opinions on a paired comparison.

    Args:
        a: Patient to mean score of the first condition, or patient to seed to mean score.
        b: The same of the second condition, same patients.
        alpha: Level of tests and intervals, in (0, 0.5).
        margin: Difference for which patients are counted; None where no margin is meant.
        folds: Patient to the fold it was held out in.
        test_share: Size of a test set over that of a training set; ``1 / (K - 1)`` for the K folds by default.
        mixed: Whether to fit the mixed model, which takes up to seconds.
        equivalence_alpha: Level of claims of equivalence; ``alpha`` by default.

    Raises:
        SkipSegError: If the patients differ, there are none, or an argument lies outside its range.

    Examples:
        >>> a = {"p1": 0.81, "p2": 0.74, "p3": 0.90, "p4": 0.77}
        >>> b = {"p1": 0.80, "p2": 0.70, "p3": 0.84, "p4": 0.70}
        >>> found = checks(a, b, margin=0.02)
        >>> found.wilcoxon_p, found.superiority.estimate, found.cases_needed
        (0.125, 1.0, {'1': 16})
    """
    tables = aligned(a, b)
    data = tables.difference()
    claims = alpha if equivalence_alpha is None else equivalence_alpha
    by_patient = dict(zip(sorted(a), data.patients.tolist(), strict=True))
    return Checks(
        wilcoxon_p=wilcoxon_p(data.patients.tolist()),
        hierarchical_p=hierarchical_p(data) if data.replicated else None,
        superiority=superiority(tables.a, tables.b, 1 - alpha, paired_seeds=tables.paired_seeds),
        spread=tables.spread() if data.replicated else None,
        detectable=detectable_difference(tables, alpha),
        cases_needed={} if margin is None else _cases(tables, _Question(margin, alpha, False), alpha),
        cases_to_exclude={} if margin is None else _cases(tables, _Question(margin, claims, True), alpha),
        corrected_t=_over_folds(by_patient, folds or {}, test_share, 1 - alpha),
        mixed=mixed_model(tables.a, tables.b, 1 - alpha) if mixed else None,
    )


def _cases(tables: Aligned, question: "_Question", alpha: float) -> dict[str, int | None]:
    """Patients that answer a question with probability 0.8, by number of seeds; never fewer than p needs."""
    fewest = fewest_patients(alpha)
    found = _likely_cases(tables, question)
    return {seeds: patients and max(patients, fewest) for seeds, patients in found.items()}


def _likely_cases(tables: Aligned, question: "_Question") -> dict[str, int | None]:
    """Patients by the power of the t test, by number of seeds."""
    data = tables.difference()
    n = len(data.patients)
    if data.nested:  # the seeds needed, each with as many patients as now
        groups = data.nested.groups
        sd = (data.nested.variance * groups) ** 0.5
        seeds = question.one_seed(sd) if sd > 0 else 0
        return {str(seeds): math.ceil(seeds * n / groups)} if seeds else {}
    if data.replicated:
        spread = tables.spread()
        if spread is None or not spread.error(2, 2) > 0:
            return {}
        numbers = sorted({tables.seeds, *PLANNED_SEEDS})
        return {str(seeds): question.several_seeds(spread, seeds) for seeds in numbers}
    sd = float(data.patients.std(ddof=1)) if n > 1 else 0.0
    return {"1": question.one_seed(sd)} if sd > 0 else {}


@dataclass(frozen=True)
class _Question:
    """How many patients find a difference of the margin, or exclude one."""

    margin: float
    alpha: float
    exclude: bool

    def one_seed(self, sd: float) -> int:
        """Where only patients, or only groups of them, scatter."""
        return (cases_to_exclude if self.exclude else cases_needed)(sd, self.margin, self.alpha, POWER)

    def several_seeds(self, spread: Spread, seeds: int) -> int | None:
        """Where patients and seeds scatter."""
        count = cases_to_exclude_with_seeds if self.exclude else cases_needed_with_seeds
        return count(spread, self.margin, seeds, self.alpha, POWER)


def _over_folds(
    differences: Mapping[str, float], folds: Mapping[str, int], test_share: float | None, confidence: float
) -> CorrectedT | None:
    """Take each fold's mean difference as one replicate."""
    groups: dict[int, list[float]] = {}
    for patient, difference in differences.items():
        if patient in folds:
            groups.setdefault(folds[patient], []).append(difference)
    if len(groups) < 2:
        return None
    share = 1 / (len(groups) - 1) if test_share is None else test_share
    return corrected_resampled_t([fmean(groups[fold]) for fold in sorted(groups)], share, confidence)
