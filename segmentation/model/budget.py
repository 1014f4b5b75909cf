"""Equal budgets: widths at which two networks have about the same parameters or multiplications.

Without this, a comparison of skips is also one of sizes: concatenation alone adds a tenth to a U-Net's parameters.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from segmentation import SkipSegError
from segmentation.config import NetworkSettings
from segmentation.model.layers import Kernels, total_cost

TOLERANCE = 0.01
"""Largest relative difference between a network and its reference."""
_TRIES = 12
"""Roundings that are tried, the most promising first."""
_LARGEST_BEND = 0.25
"""Largest relative departure from proportional widths, roundings aside."""
_GROUP = 8
"""Channels of a group in group normalisation, which widths must keep whole."""
_Widths = tuple[int, ...]
_Cost = Callable[[_Widths], int]


def default_reference(settings: NetworkSettings) -> NetworkSettings:
    """What a network is matched to when it stands alone: the same with concat and without short skips.

    Examples:
        >>> default_reference(NetworkSettings(depth=2, width=8, long_skip="none", short_skip="dense")).long_skip
        'concat'
    """
    return replace(
        settings,
        long_skip="concat",
        long_skip_levels={},
        long_skip_scale_learned=False,
        long_skip_permute=None,
        input_skip=False,
        short_skip="none",
        short_skip_levels={},
    )


def solve_widths(
    settings: NetworkSettings,
    reference: NetworkSettings,
    dims: int,
    in_channels: int,
    classes: int,
    strides: Kernels | None = None,
    kernels: Kernels | None = None,
    size: Sequence[int] | None = None,
) -> NetworkSettings:
    """Choose widths so that a network costs what its reference costs, to 1 %.

    The widths are those of the reference times one factor, each within one channel; where the depths differ, the
    network's own widths times one factor. Where the cost hangs on the finest level so much that one channel of it is
    too coarse a step, as in U-Net 3+, the coarser levels have a factor of their own.

    Args:
        settings: The network; its ``budget_match`` says what is made equal, and with ``"none"`` nothing changes.
        reference: What it shall cost as much as.
        dims: Spatial axes.
        in_channels: Channels of the image.
        classes: Channels of the logits.
        strides: Factor by which each step down shrinks each axis; 2 if not given.
        kernels: Size of the convolutions at each level; as the settings say if not given.
        size: Voxels of the image along each axis; only multiplications depend on it.

    Returns:
        ``settings`` with ``widths``.

    Raises:
        SkipSegError: If no such widths come within 1 %, as happens with few channels.

    Examples:
        >>> none = NetworkSettings(depth=3, width=16, long_skip="none", budget_match="params")
        >>> solve_widths(none, default_reference(none), dims=2, in_channels=1, classes=2).widths
        [17, 34, 67, 135]
    """
    budget = settings.budget_match
    if budget == "none":
        return settings

    def cost(network: NetworkSettings) -> int:
        total = total_cost(network, dims, in_channels, classes, strides, kernels, size)
        return total.parameters if budget == "params" else total.macs

    target = cost(reference)
    base = (reference if reference.depth == settings.depth else settings).channels()
    widths, reached = _fit(
        lambda tried: cost(replace(settings, widths=list(tried))), target, base, _step(settings, base)
    )
    if abs(reached - target) > TOLERANCE * target:
        what = "parameters" if budget == "params" else "multiply-accumulates"
        raise SkipSegError(
            f"budget_match {budget} finds no widths within {TOLERANCE:.0%} of {target:,} {what}: the nearest, "
            f"{list(widths)}, have {reached:,}; use a larger network.width, or budget_match none"
        )
    return replace(settings, widths=list(widths))


def _step(settings: NetworkSettings, widths: Sequence[int]) -> int:
    """Steps in which widths change: whole groups where the normalisation has them, else single channels."""
    return _GROUP if settings.norm == "group" and all(width % _GROUP == 0 for width in widths) else 1


def _fit(cost: _Cost, target: int, base: Sequence[int], step: int) -> tuple[_Widths, int]:
    """Widths about proportional to ``base`` whose cost is within tolerance of ``target``, or the nearest; its cost."""
    widths, reached = _search(cost, target, base, step)
    fits = abs(reached - target) <= TOLERANCE * target
    if fits or len(base) == 1:
        return widths, reached
    # The cost may hang on the finest level so much that one channel is too coarse: let the others make up for it.
    found = [(widths, reached)]
    for first in (widths[0], widths[0] + (step if reached < target else -step)):
        if first > 0:
            rest, reached = _search(_with_first(cost, first), target, base[1:], step)
            if _largest_ratio((first, *rest), base) <= 1 + _LARGEST_BEND:
                found.append(((first, *rest), reached))
    return min(found, key=lambda each: abs(each[1] - target))


def _with_first(cost: _Cost, first: int) -> _Cost:
    """The cost of all levels but the finest, which is ``first``."""
    return lambda rest: cost((first, *rest))


def _largest_ratio(widths: _Widths, base: Sequence[int]) -> float:
    """Largest ratio between the factors that lead from ``base`` to ``widths``, a rounding allowed for."""
    factors = [(width - 0.5) / each for width, each in zip(widths, base, strict=True)]
    return max(factors) / min((width + 0.5) / each for width, each in zip(widths, base, strict=True))


def _search(cost: _Cost, target: int, base: Sequence[int], step: int) -> tuple[_Widths, int]:
    """Widths near one factor times ``base`` whose cost is within tolerance of ``target``, or the nearest; its cost."""
    factor = 1.0
    tried: dict[_Widths, int] = {}
    while True:
        widths = tuple(max(1, round(factor * width / step)) * step for width in base)
        if widths in tried:
            break
        tried[widths] = cost(widths)
        if abs(tried[widths] - target) <= TOLERANCE * target:
            return widths, tried[widths]
        # Costs grow about as the square of the widths.
        factor *= math.sqrt(target / tried[widths])
    widths, reached = min(tried.items(), key=lambda each: abs(each[1] - target))
    for near in _neighbours(cost, target, base, widths, step):
        found = cost(near)
        if abs(found - target) < abs(reached - target):
            widths, reached = near, found
        if abs(reached - target) <= TOLERANCE * target:
            break
    return widths, reached


def _neighbours(cost: _Cost, target: int, base: Sequence[int], widths: _Widths, step: int) -> list[_Widths]:
    """Widths a step from ``widths`` at any level: those that promise the budget, the most proportional first.

    What several changed levels cost together is foreseen as the sum of what each costs alone.
    """
    reached = cost(widths)
    choices: list[list[tuple[int, int]]] = []
    for level, width in enumerate(widths):
        others = [other for other in (width - step, width + step) if other > 0]
        changed = [(other, cost((*widths[:level], other, *widths[level + 1 :])) - reached) for other in others]
        choices.append([(width, 0), *changed])
    ranked: list[tuple[bool, float, _Widths]] = []
    for combination in itertools.product(*choices):
        others, changes = zip(*combination, strict=True)
        error = abs(reached + sum(changes) - target) / target
        bend = _bend(others, base, step)
        if bend <= 1:
            ranked.append((error > TOLERANCE, bend if error <= TOLERANCE else error, others))
    return [others for *_, others in sorted(ranked)[:_TRIES]]


def _bend(widths: _Widths, base: Sequence[int], step: int) -> float:
    """Steps by which a width departs, at most, from a multiple of ``base``, which is chosen to make them few.

    Examples:
        >>> _bend((3, 6, 12), [1, 2, 4], step=1), _bend((4, 6), [1, 1], step=1)
        (0.0, 1.0)
    """
    # |w - f b| <= t and |v - f c| <= t for some f, just where (w c - v b) / (b + c) <= t.
    pairs = itertools.permutations(zip(widths, base, strict=True), 2)
    return max(((w * c - v * b) / (b + c) for (w, b), (v, c) in pairs), default=0.0) / step
