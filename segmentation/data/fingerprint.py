"""What planning looks at: sizes, spacings and intensities of a dataset, in canonical axes."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segmentation.data.check import CheckReport
from segmentation.data.coarse import COARSENINGS
from segmentation.data.facts import PERCENTILES, CaseFacts, Intensities
from segmentation.data.manifest import Dataset
from segmentation.data.preprocessing import THICK_SLICES, Normalisation

_AXIS = {"R": 0, "L": 0, "A": 1, "P": 1, "S": 2, "I": 2}
_COLOURS = frozenset(("red", "green", "blue", "r", "g", "b"))
_LEFT = re.compile(r"(?<![a-z0-9])l|l(?![a-z0-9])")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_SIDE = re.compile(r"(?<![a-z0-9])(left|right|[lr]h?)(?![a-z0-9])")
"""In the name of a class, in lower case: ``left_kidney``, ``Kidney R``, ``lh``."""


@dataclass(frozen=True)
class ChannelFingerprint:
    """Intensities of one channel over the dataset.

    Attributes:
        name: Its meaning.
        low, high: 0.5th and 99.5th percentile within the foreground, median over cases.
        mean, std: Within the foreground, pooled over cases.
        image_mean, image_std: Of whole images, pooled over cases.
        largest: Largest value anywhere.
    """

    name: str
    low: float
    high: float
    mean: float
    std: float
    image_mean: float
    image_std: float
    largest: float


@dataclass(frozen=True)
class Fingerprint:
    """A dataset in numbers.

    Attributes:
        spatial_dims: 2 for pictures, 3 for volumes.
        cases, patients: How many there are.
        shape: Median size of each canonical axis, in voxels.
        spacing_mm: Median spacing of each canonical axis, in mm.
        spacing_low_mm: 10th percentile of the spacing of each canonical axis, in mm.
        channels: Intensities of each channel.
        sided: Whether classes are named by left and right, which a mirror exchanges.
        coarse_kept: What labels keep (:func:`~segmentation.data.coarse.coarse_kept`) in voxels
            :data:`~segmentation.data.coarse.COARSENINGS` times as wide as the finest of ``spacing_mm``: mean over the
            cases of a class, of the class that loses most. Empty without labels.
    """

    spatial_dims: int
    cases: int
    patients: int
    shape: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    spacing_low_mm: tuple[float, ...]
    channels: tuple[ChannelFingerprint, ...]
    sided: bool = False
    coarse_kept: tuple[float, ...] = ()

    @property
    def target_spacing_mm(self) -> tuple[float, ...]:
        """The median spacing; across thick slices the 10th percentile, so that thin slices are not blurred."""
        thick = [s > THICK_SLICES * min(self.spacing_mm) for s in self.spacing_mm]
        chosen = zip(thick, self.spacing_mm, self.spacing_low_mm, strict=True)
        return tuple(round(low if is_thick else middle, 4) for is_thick, middle, low in chosen)

    def shape_at(self, spacing_mm: Sequence[float]) -> list[int]:
        """The median shape in voxels of another spacing."""
        axes = zip(self.shape, self.spacing_mm, spacing_mm, strict=True)
        return [max(1, round(voxels * found / wanted)) for voxels, found, wanted in axes]

    def is_of(self, other: "Fingerprint") -> bool:
        """Tell whether this stored fingerprint is of the same data as one that was just taken.

        What later versions see in the same data does not count: names of sides, and ``coarse_kept`` if it is missing.
        """
        kept = other.coarse_kept if self.coarse_kept else ()
        return self == replace(other, sided=self.sided, coarse_kept=kept)

    def normalisation(self) -> tuple[list[Normalisation], str]:
        """Choose how intensities become [0, 1], one entry a channel, and say why."""
        if all(channel.name.lower() in _COLOURS for channel in self.channels):
            return [_range(channel) for channel in self.channels], "colours keep their fixed range"
        why = "; ".join(
            f"{c.name}: Hounsfield units mean the same in every scan, so one window from the foreground's percentiles"
            if _is_ct(c)
            else f"{c.name}: intensities have no fixed scale, so each scan is centred and scaled on its own"
            for c in self.channels
        )
        return [_window(c) if _is_ct(c) else Normalisation("zscore") for c in self.channels], why

    def to_plain(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> "Fingerprint":
        """Rebuild from :meth:`to_plain`."""
        axes = {name: tuple(plain[name]) for name in ("shape", "spacing_mm", "spacing_low_mm")}
        channels = tuple(ChannelFingerprint(**channel) for channel in plain["channels"])
        kept = tuple(plain.get("coarse_kept", ()))  # plans of versions before it lack it
        fields: dict[str, Any] = {**plain, **axes, "channels": channels, "coarse_kept": kept}
        return cls(**fields)


def take_fingerprint(dataset: Dataset, report: CheckReport) -> Fingerprint:
    """Sum up what the check measured."""
    cases = list(report.facts.values())
    sizes = [_canonical(facts) for facts in cases]
    spacings = [spacing for _, spacing in sizes]
    median_mm = _by_axis(spacings, median)
    return Fingerprint(
        spatial_dims=dataset.spatial_dims,
        cases=len(cases),
        patients=len({case.patient for case in dataset.cases}),
        shape=tuple(round(value) for value in _by_axis([shape for shape, _ in sizes], median)),
        spacing_mm=median_mm,
        spacing_low_mm=_by_axis(spacings, lambda axis: float(np.percentile(axis, 10))),
        channels=tuple(_channel(name, index, cases) for index, name in enumerate(dataset.channel_names)),
        sided=_are_sided(dataset.foreground),
        coarse_kept=_coarse_kept(cases, dataset, min(median_mm)),
    )


def _are_sided(names: Iterable[str]) -> bool:
    """Tell whether one name says a side, or two differ by it alone, such as LV and RV."""
    known = {_CAMEL.sub("_", name).lower() for name in names}
    mirrored = {f"{name[: at.start()]}r{name[at.end() :]}" for name in known for at in _LEFT.finditer(name)}
    return any(map(_SIDE.search, known)) or bool(known & mirrored)


def _coarse_kept(cases: Sequence[CaseFacts], dataset: Dataset, finest_mm: float) -> tuple[float, ...]:
    """What labels keep in voxels of the same widths in mm in every case: mean over cases, of the worst class."""
    means = [
        np.mean([_at_widths(kept, finest_mm / min(spacing_mm)) for kept, spacing_mm in found], axis=0)
        for name in dataset.foreground
        if (found := [(facts.coarse_kept[name], facts.spacing_mm) for facts in cases if name in facts.coarse_kept])
    ]
    return tuple(round(float(kept), 4) for kept in np.min(means, axis=0)) if means else ()


def _at_widths(kept: Sequence[float], ratio: float) -> NDArray[np.float64]:
    """What is kept at :data:`COARSENINGS` times another voxel, ``ratio`` times as wide as the case's own."""
    return np.interp(np.multiply(COARSENINGS, ratio), (1, *COARSENINGS), (1.0, *kept))


def _canonical(facts: CaseFacts) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Shape and spacing of a case along left-right, back-front, bottom-top."""
    if not facts.orientation:
        return facts.shape, facts.spacing_mm
    order = sorted(range(3), key=lambda axis: _AXIS[facts.orientation[axis]])
    return tuple(facts.shape[axis] for axis in order), tuple(facts.spacing_mm[axis] for axis in order)


def _by_axis(rows: Sequence[Sequence[float]], reduce: Callable[[Sequence[float]], float]) -> tuple[float, ...]:
    """Reduce each column of ``rows``, to 6 digits."""
    return tuple(round(float(reduce(axis)), 6) for axis in zip(*rows, strict=True))


def _channel(name: str, index: int, cases: Sequence[CaseFacts]) -> ChannelFingerprint:
    """Pool one channel over the cases."""
    whole = [entry for facts in cases if (entry := facts.image_intensities[index])]
    inside = [
        entry for facts in cases if facts.foreground_intensities and (entry := facts.foreground_intensities[index])
    ] or whole
    low, high = (median(entry.percentiles[PERCENTILES.index(p)] for entry in inside) for p in (0.5, 99.5))
    mean, std = _pool(inside)
    image_mean, image_std = _pool(whole)
    largest = max(entry.maximum for entry in whole)
    values = (low, high, mean, std, image_mean, image_std, largest)
    return ChannelFingerprint(name, *(float(f"{value:.6g}") for value in values))


def _pool(entries: Sequence[Intensities]) -> tuple[float, float]:
    """Mean and standard deviation over all voxels, by the law of total variance."""
    weights = np.array([entry.voxels for entry in entries], np.float64)
    means, stds = (np.array([getattr(entry, name) for entry in entries]) for name in ("mean", "std"))
    mean = float(np.average(means, weights=weights))
    return mean, float(np.sqrt(np.average(stds**2 + (means - mean) ** 2, weights=weights)))


def _is_ct(channel: ChannelFingerprint) -> bool:
    """Tell whether a channel holds Hounsfield units."""
    return channel.name.upper() == "CT"


def _window(channel: ChannelFingerprint) -> Normalisation:
    """Map the foreground's range to [0, 1]."""
    width = max(channel.high - channel.low, 1e-6)
    mean = min(max((channel.mean - channel.low) / width, 0.0), 1.0)
    return Normalisation(
        "window", channel.low, channel.low + width, round(mean, 6), round(channel.std / width, 6) or 1.0
    )


def _range(channel: ChannelFingerprint) -> Normalisation:
    """Map the range of the picture's bit depth to [0, 1]."""
    high = 255.0 if channel.largest <= 255 else 65535.0
    mean, std = channel.image_mean / high, channel.image_std / high
    return Normalisation("range", 0.0, high, round(mean, 6), round(std, 6) or 1.0)
