"""Statistics over patients and seeds: intervals, paired comparisons with a verdict, second opinions, and power."""

from segmentation.statistics.bootstrap import Interval, mean_ci
from segmentation.statistics.equivalence import Verdict, decide, equivalence_interval
from segmentation.statistics.hierarchical import Crossed, crossed, hierarchical_ci, hierarchical_p, table_of
from segmentation.statistics.mixed import MixedModel, mixed_model
from segmentation.statistics.multiplicity import Judged, holm
from segmentation.statistics.paired import PairedDifference, aligned, paired_difference
from segmentation.statistics.permutation import fewest_patients, sign_flip_p, smallest_p, wilcoxon_p
from segmentation.statistics.power import cases_needed, cases_to_exclude, minimum_detectable_difference, paired_t_power
from segmentation.statistics.probability import superiority
from segmentation.statistics.resampled import CorrectedT, corrected_resampled_t
from segmentation.statistics.seed_power import (
    Spread,
    cases_needed_with_seeds,
    cases_to_exclude_with_seeds,
    detectable_with_seeds,
)
from segmentation.statistics.side_checks import Checks, checks
from segmentation.statistics.variance import VarianceSplit, variance_split

__all__ = [
    "Checks",
    "CorrectedT",
    "Crossed",
    "Interval",
    "Judged",
    "MixedModel",
    "PairedDifference",
    "Spread",
    "VarianceSplit",
    "Verdict",
    "aligned",
    "cases_needed",
    "cases_needed_with_seeds",
    "cases_to_exclude",
    "cases_to_exclude_with_seeds",
    "checks",
    "corrected_resampled_t",
    "crossed",
    "decide",
    "detectable_with_seeds",
    "equivalence_interval",
    "fewest_patients",
    "hierarchical_ci",
    "hierarchical_p",
    "holm",
    "mean_ci",
    "minimum_detectable_difference",
    "mixed_model",
    "paired_difference",
    "paired_t_power",
    "sign_flip_p",
    "smallest_p",
    "superiority",
    "table_of",
    "variance_split",
    "wilcoxon_p",
]
