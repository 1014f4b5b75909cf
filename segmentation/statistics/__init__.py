"""Statistics over patients: intervals of means, paired comparisons with a verdict, and power."""

from segmentation.statistics.bootstrap import Interval, mean_ci
from segmentation.statistics.equivalence import Verdict, decide, equivalence_interval
from segmentation.statistics.paired import PairedDifference, paired_difference
from segmentation.statistics.permutation import fewest_patients, sign_flip_p, smallest_p
from segmentation.statistics.power import cases_needed, minimum_detectable_difference, paired_t_power

__all__ = [
    "Interval",
    "PairedDifference",
    "Verdict",
    "cases_needed",
    "decide",
    "equivalence_interval",
    "fewest_patients",
    "mean_ci",
    "minimum_detectable_difference",
    "paired_difference",
    "paired_t_power",
    "sign_flip_p",
    "smallest_p",
]
