"""What a training may cost: the sizes that suit a kind of hardware, and smaller ones for when time is short."""

import math
from dataclasses import dataclass, replace

from segmentation.data.hardware import Hardware

ENOUGH_STEPS = 1000
"""A training gets at least so many steps before its network or its patches grow."""


@dataclass(frozen=True)
class Budget:
    """What one training may cost on a kind of hardware.

    Attributes:
        voxels_2d, voxels_3d: Most voxels of a patch.
        batch_2d, batch_3d: Patches in a step.
        width_2d, width_3d: Channels at the finest level.
        epochs, steps_per_epoch: Length of the training.
        volume_limit: Volumes of more voxels than this are planned in slices.
        view: Share of the median scan that a patch should see; for its sake voxels become coarser than the scans', as
            far as the labels allow.
        name: The hardware in words.
    """

    voxels_2d: int
    voxels_3d: int
    batch_2d: int
    batch_3d: int
    width_2d: int
    width_3d: int
    epochs: int
    steps_per_epoch: int
    volume_limit: float
    view: float
    name: str

    def voxels(self, dims: int) -> int:
        """Most voxels of a patch of ``dims`` axes."""
        return self.voxels_2d if dims == 2 else self.voxels_3d

    @property
    def steps(self) -> int:
        """Steps of the whole training."""
        return self.epochs * self.steps_per_epoch


BUDGETS: dict[Hardware, Budget] = {
    "cpu": Budget(128**2, 56**3, 8, 2, 16, 16, 40, 50, 80**3, 0.9, "a CPU"),
    "cuda": Budget(512**2, 128**3, 12, 2, 32, 32, 250, 250, math.inf, 0.0, "a GPU"),
}


def budgets_by_cost(budget: Budget) -> list[Budget]:
    """Budgets to choose from when time is given, the cheapest first: ``budget``, one above it, and three below.

    Above it the network is twice as wide. Below it there are half as many patches a step, then the network is half as
    wide, then the patches have half the voxels.

    Examples:
        >>> [(each.width_3d, each.voxels_3d, each.batch_3d) for each in budgets_by_cost(BUDGETS["cpu"])]
        [(8, 87808, 1), (8, 175616, 1), (16, 175616, 1), (16, 175616, 2), (32, 175616, 2)]
    """
    few = replace(budget, batch_2d=max(1, budget.batch_2d // 2), batch_3d=max(1, budget.batch_3d // 2))
    narrow, wide = (
        replace(given, width_2d=round(given.width_2d * factor), width_3d=round(given.width_3d * factor))
        for given, factor in ((few, 0.5), (budget, 2))
    )
    small = replace(narrow, voxels_2d=narrow.voxels_2d // 2, voxels_3d=narrow.voxels_3d // 2)
    return [small, narrow, few, budget, wide]
