"""Held-out cases as the network is shown them: prepared intensities and labels on one grid."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segmentation.data.cache import cache_cases
from segmentation.probes.context import ProbeContext
from segmentation.runs import user_cache


@dataclass(frozen=True)
class PreparedCase:
    """A case on the prepared grid.

    Attributes:
        name: The case.
        image: Intensities in [0, 1], shape ``(C, *S)``, slice axis first if there is one.
        labels: Class index of every voxel, shape ``(*S)``; the number of classes where voxels are to be ignored.
    """

    name: str
    image: NDArray[np.floating[Any]]
    labels: NDArray[np.integer[Any]]


def prepared_cases(context: ProbeContext) -> list[PreparedCase]:
    """The cases of ``context.held_out`` on the prepared grid, read from the run's cache."""
    chosen = {case.name for case in context.held_out}
    cases = [case for case in context.val_cases if case.name in chosen]
    cached = cache_cases(context.dataset, cases, context.preprocessing, context.settings.cache or user_cache())
    return [PreparedCase(each.name, each.image(), each.labels()) for each in cached]
