"""Scores of a prediction against a reference: pure numpy and scipy, one policy for empty masks."""

from segmentation.metrics.cases import COLUMNS, score_case
from segmentation.metrics.lesions import RULE, Lesions, count_lesions
from segmentation.metrics.overlap import Counts, confusion, dice_per_class, iou_per_class
from segmentation.metrics.policy import POLICY, State, case_state, worst_distance_mm
from segmentation.metrics.surface import SurfaceScores, surface_dice, surface_scores, voxel_distances_mm
from segmentation.metrics.surface_elements import surface_elements

__all__ = [
    "COLUMNS",
    "POLICY",
    "RULE",
    "Counts",
    "Lesions",
    "State",
    "SurfaceScores",
    "case_state",
    "confusion",
    "count_lesions",
    "dice_per_class",
    "iou_per_class",
    "score_case",
    "surface_dice",
    "surface_elements",
    "surface_scores",
    "voxel_distances_mm",
    "worst_distance_mm",
]
