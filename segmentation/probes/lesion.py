"""Lesions of the long skips: how the Dice of each held-out case changes when a level's skip is replaced.

Three replacements of the map z that leaves the encoder at a level, made where every long skip flows through its tap:

    zero      0
    mean      the mean of z over the training patches, channel by channel
    roll      z itself, rolled by half its size along every axis (by a quarter where the network's placebo has
              rolled it by half)

A rolled map has the distribution that the decoder is used to and only its place is wrong, so it is the fairest of
the three; zeros also punish the decoder for never having seen them. Suites, whose batches hold independent pictures,
shuffle instead: each picture gets z of another one (permutation importance, Breiman 2001). A scan is predicted by
windows, which are neighbours: there the map of another would nearly be the right one. The change is
Dice(lesioned) - Dice(intact), a mean over classes for each case: below 0 the lesion costs Dice.
"""

import math
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from segmentation import SkipSegError
from segmentation.figures import Figure, Series
from segmentation.model.order import evaluating
from segmentation.model.skips import SkipTap, placebo_of, roll_part
from segmentation.model.unet import UNet
from segmentation.probes.context import Batch, NotMeasurableError, ProbeContext, ProbeResult
from segmentation.probes.stages import captured
from segmentation.statistics.bootstrap import Interval, mean_ci

How = Literal["zero", "mean", "roll", "shuffle"]
HOW: tuple[How, ...] = ("zero", "mean", "roll")
"""Replacements that the probe makes."""
Scores = Mapping[str, float]
"""Dice of each case; nan where neither map holds any structure."""
Lesion = Callable[[], AbstractContextManager[None]]
"""Makes a lesion that ends with its block."""
LOSS_BELOW = "change of Dice (below 0: lost)"
"""Label of an axis of changes."""
NOTE = (
    "Changes are Dice with the lesion less Dice without it: below 0 the lesion costs Dice. A lesion shows what "
    "the trained network relies on, not what a network trained without that skip would reach: it had no chance to "
    "adapt. Read roll first. Cases in which neither map holds the structure are left out."
)


def skip_levels(network: UNet) -> list[int]:
    """Encoder levels that some long skip reads, finest first."""
    return [level for level in range(len(network.encoder)) if network.tap(level) is not None]


@contextmanager
def lesioned_skips(
    network: UNet, levels: Iterable[int], how: How, means: Mapping[int, Tensor] | None = None
) -> Generator[None]:
    """Replace the encoder maps of ``levels`` while the block runs.

    Args:
        network: Left as it was.
        levels: Encoder levels.
        how: Replacement.
        means: For ``"mean"``: the map of each level, of a shape that expands to ``(B, C, *S)``; see :func:`skip_means`.

    Raises:
        SkipSegError: If a level has no long skip, or ``"mean"`` is given no map for it.
    """
    hooks: list[Any] = []
    try:
        for level in levels:
            tap = network.tap(level)
            if tap is None:
                raise SkipSegError(f"level {level} has no long skip; this network has them at {skip_levels(network)}")
            if how == "mean" and level not in (means or {}):
                raise SkipSegError(f"a lesion by the mean needs the mean map of level {level}; measure it first")
            hooks.append(tap.register_forward_hook(_replacement(how, (means or {}).get(level))))
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _replacement(how: How, mean: Tensor | None) -> Any:
    """Hook that replaces a tap's output."""

    def hook(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        if mean is not None and how == "mean":
            return mean.to(output).expand_as(output)
        if how == "roll":
            placebo = module.settings.long_skip_placebo if isinstance(module, SkipTap) else "none"
            return roll_part(output, 4 if placebo == "shuffle" else 2)
        return placebo_of(output, "shuffle" if how == "shuffle" else "zeros", None, None)

    return hook


@torch.no_grad()
def skip_means(network: UNet, batches: Sequence[Batch]) -> dict[int, Tensor]:
    """Mean map of each level that has a long skip.

    Args:
        network: Measured in evaluation mode.
        batches: Images, shape ``(B, C, *S)``, and labels, shape ``(B, *S)``.

    Returns:
        Level to a map of shape ``(1, C, 1, ...)``: the mean over images and space.
    """
    levels = skip_levels(network)
    sums: dict[int, Tensor] = {}
    with captured({str(level): network.taps[str(level)] for level in levels}) as maps, evaluating(network):
        for images, _ in batches:
            network(images)
            for level in levels:
                axes = (0, *range(2, images.ndim))
                sums[level] = sums.get(level, 0) + maps[str(level)].mean(dim=axes, keepdim=True) * len(images)
    cases = sum(len(images) for images, _ in batches)
    return {level: total / cases for level, total in sums.items()}


def dice_changes(score: Callable[[], Scores], lesions: Mapping[str, Lesion]) -> tuple[Scores, dict[str, Scores]]:
    """Score a network intact and under each lesion.

    Args:
        score: Dice of each case, of the network as it is now.
        lesions: By name.

    Returns:
        The intact Dice of each case, and for each lesion its change.

    Examples:
        >>> scores = {"a": 0.75, "b": 0.5}
        >>> @contextmanager
        ... def lesion():
        ...     scores["a"] = 0.25
        ...     yield
        >>> dice_changes(lambda: dict(scores), {"L0": lesion})
        ({'a': 0.75, 'b': 0.5}, {'L0': {'a': -0.5, 'b': 0.0}})
    """
    intact = score()
    changes: dict[str, Scores] = {}
    for name, lesion in lesions.items():
        with lesion():
            found = score()
        changes[name] = {case: found[case] - dice for case, dice in intact.items()}
    return intact, changes


def case_dice(context: ProbeContext, network: UNet) -> dict[str, float]:
    """Dice of each held-out case, mean over classes; nan where neither map holds any class."""
    return {
        case: float(np.nanmean(known)) if (known := [d for d in dice.values() if not math.isnan(d)]) else math.nan
        for case, dice in context.score(network).items()
    }


def patient_interval(context: ProbeContext, values: Scores) -> Interval:
    """Mean over patients with its 95 % interval; cases without a value are left out.

    Raises:
        NotMeasurableError: If no case has a value.
    """
    patients: dict[str, list[float]] = {}
    for case in context.val_cases:
        if not math.isnan(values.get(case.name, math.nan)):
            patients.setdefault(case.patient, []).append(values[case.name])
    if not patients:
        raise NotMeasurableError("no held-out case holds the structure; Dice is not defined for any")
    return mean_ci([float(np.mean(found)) for found in patients.values()])


def skips_note(network: UNet) -> str:
    """Say that the long skips carry a placebo, and that the input skip stays; empty if there is neither.

    Examples:
        >>> from segmentation.config import NetworkSettings
        >>> skips_note(UNet(NetworkSettings(depth=1, width=2), 2, 1, 2))
        ''
    """
    kind, note = network.settings.long_skip_placebo, ""
    if kind != "none":
        note = f" The long skips of this network carry the placebo {kind}: measured is its part, not the encoder's."
    if network.settings.input_skip:
        note += " The input skip, which adds the first convolution to the last decoder map, is never taken away."
    return note


def draw_intervals(title: str, intervals: Mapping[str, Interval], x_label: str = LOSS_BELOW) -> Figure:
    """Draw means over patients with their intervals."""
    mean, low, high = ([getattr(each, name) for each in intervals.values()] for name in ("estimate", "low", "high"))
    return Figure(
        "points", title, x_label, "", [Series("mean over patients", mean, None, low, high)],
        list(intervals), reference=0.0,
    )  # fmt: skip


def summarise(context: ProbeContext, title: str, lesions: Mapping[str, Lesion], note: str) -> ProbeResult:
    """Score a run's network intact and under each lesion, and put what was found together."""
    intact, changes = dice_changes(lambda: case_dice(context, context.network), lesions)
    intervals = {name: patient_interval(context, change) for name, change in changes.items()}
    values = {
        "intact": dict(intact),
        "changes": {name: vars(intervals[name]) | {"cases": dict(change)} for name, change in changes.items()},
    }
    return ProbeResult(values, [draw_intervals(title, intervals)], note)


def probe(context: ProbeContext) -> ProbeResult:
    """Lesion every long skip of a run's network in each of the three ways.

    Raises:
        NotMeasurableError: If the network has no long skip.
    """
    network, levels = context.network, skip_levels(context.network)
    if not levels:
        raise NotMeasurableError("this network has no long skip to take away")
    means = skip_means(network, context.batches)

    def make(level: int, how: How) -> Lesion:
        return lambda: lesioned_skips(network, [level], how, means)

    lesions = {f"L{level} {how}": make(level, how) for level in levels for how in HOW}
    return summarise(context, "Change of Dice when a long skip is replaced", lesions, NOTE + skips_note(network))
