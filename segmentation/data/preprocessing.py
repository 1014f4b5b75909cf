"""How scans are prepared, as plain data: what a plan decides, a run records and a model carries with it.

The preparation itself is :mod:`segmentation.data.transforms`. Its description stands apart, so that a study is
planned and frozen without loading PyTorch.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from segmentation.scans import Scan, to_canonical

Scheme = Literal["window", "zscore", "range"]
THICK_SLICES = 3.0
"""An axis whose spacing exceeds the finest by this factor runs across thick slices."""

ZSCORE_LIMIT = 5.0
"""A z-score beyond this is cut off, and [-5, 5] is what [0, 1] stands for."""


@dataclass(frozen=True)
class Normalisation:
    """How one channel's intensities become [0, 1].

    Attributes:
        scheme: ``"window"`` maps [low, high] of the scan's own unit (HU for CT), ``"range"`` likewise for
            pictures with a fixed range, ``"zscore"`` maps z-scores of each scan within +-5.
        low, high: Ends of the mapped interval; what lies outside is cut off.
        mean, std: Of the mapped intensities over the dataset; the network sees ``(x - mean) / std``.
    """

    scheme: Scheme
    low: float = -ZSCORE_LIMIT
    high: float = ZSCORE_LIMIT
    mean: float = 0.5
    std: float = 0.5 / ZSCORE_LIMIT

    def apply(self, channel: NDArray[Any]) -> NDArray[np.float32]:
        """Map intensities, shape ``(*S)``, into [0, 1]; a constant channel with ``"zscore"`` becomes 0.5."""
        return self.fitted(channel)(channel)

    def fitted(self, channel: NDArray[Any], after_plane: Callable[[], None] = lambda: None) -> "IntensityMap":
        """Fix the mapping for one channel, shape ``(*S)``: with ``"zscore"`` its mean and deviation are measured.

        Args:
            channel: Intensities, read plane by plane along the first axis.
            after_plane: Called after each plane, to let its memory go.
        """
        if self.scheme != "zscore":
            return IntensityMap(0.0, 1.0, self.low, self.high)
        total = squares = 0.0
        for plane in channel:
            total += float(plane.astype(np.float32).sum(dtype=np.float64))
            after_plane()
        mean = total / channel.size
        for plane in channel:
            squares += float(np.square(plane.astype(np.float32) - np.float64(mean)).sum())
            after_plane()
        return IntensityMap(mean, max(float(np.sqrt(squares / channel.size)), 1e-8), self.low, self.high)


@dataclass(frozen=True)
class IntensityMap:
    """An affine map of intensities into [0, 1], cut off at both ends.

    Attributes:
        mean, deviation: Taken off first, and divided by.
        low, high: What becomes 0 and 1.
    """

    mean: float
    deviation: float
    low: float
    high: float

    def __call__(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """Map intensities of any shape."""
        x = values.astype(np.float32)
        if (self.mean, self.deviation) != (0, 1):
            x = (x - np.float64(self.mean)) / self.deviation
        return np.clip((x - self.low) / (self.high - self.low), 0, 1, dtype=np.float32)


@dataclass(frozen=True)
class Preprocessing:
    """Everything that happens to a scan before the network; stored with every model.

    Attributes:
        dims: Spatial axes of the network.
        spacing_mm: Voxel spacing of the canonical axes after resampling, in mm.
        slice_axis: With ``dims`` 2 on volumes, the canonical axis across the slices; it is moved to the
            front. Otherwise ``None``.
        context_slices: Neighbouring slices on each side that the network reads as channels.
        normalisation: One entry a channel.
        frame: Axes of a volume that the network knows: the canonical ones, or, as for networks of other programs,
            those in which its file stores it.
    """

    dims: int
    spacing_mm: tuple[float, ...]
    slice_axis: int | None
    context_slices: int
    normalisation: tuple[Normalisation, ...]
    frame: Literal["canonical", "stored"] = "canonical"

    @property
    def network_channels(self) -> int:
        """Input channels of the network: image channels times slices."""
        return len(self.normalisation) * (1 + 2 * self.context_slices)

    @property
    def channel_means(self) -> list[float]:
        """Mean of each input channel of the network, which is taken off first."""
        return [entry.mean for entry in self.normalisation] * (1 + 2 * self.context_slices)

    @property
    def channel_stds(self) -> list[float]:
        """Standard deviation of each input channel of the network, by which it is divided."""
        return [entry.std for entry in self.normalisation] * (1 + 2 * self.context_slices)

    @property
    def array_spacing_mm(self) -> tuple[float, ...]:
        """Spacing of the prepared array's axes, which start with the slice axis if there is one."""
        return self._front(self.spacing_mm)

    def to_plain(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self) | {
            "spacing_mm": list(self.spacing_mm),
            "normalisation": [asdict(n) for n in self.normalisation],
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> "Preprocessing":
        """Rebuild from :meth:`to_plain`."""
        normalisation = tuple(Normalisation(**entry) for entry in plain["normalisation"])
        fields: dict[str, Any] = {**plain, "spacing_mm": tuple(plain["spacing_mm"]), "normalisation": normalisation}
        return cls(**fields)

    def _front(self, axes: Sequence[Any]) -> tuple[Any, ...]:
        """Move the slice axis to the front of a sequence with one entry a canonical axis."""
        if self.slice_axis is None:
            return tuple(axes)
        return (axes[self.slice_axis], *(value for axis, value in enumerate(axes) if axis != self.slice_axis))

    def framed(self, scan: Scan) -> Scan:
        """Lay a scan out as the network knows it: with ``"stored"``, its axes as they are stand for the canonical ones.

        Examples:
            >>> scan = Scan(np.arange(3.0).reshape(1, 3, 1, 1), np.diag([-2.0, 1.0, 1.0, 1.0]))
            >>> stored = Preprocessing(3, (2.0, 1.0, 1.0), None, 0, (Normalisation("zscore"),), "stored")
            >>> to_canonical(scan).array.ravel(), to_canonical(stored.framed(scan)).array.ravel()
            (array([2., 1., 0.]), array([0., 1., 2.]))
        """
        if self.frame == "canonical" or scan.spatial_dims == 2:
            return scan
        return replace(scan, affine=np.diag([*scan.spacing_mm, 1.0]))

    def prepared_shape(self, scan: Scan) -> tuple[int, ...]:
        """Canonical spatial shape of ``scan`` after resampling, before the slice axis moves."""
        canonical = to_canonical(scan)
        sizes = zip(canonical.spatial_shape, canonical.spacing_mm, self.spacing_mm, strict=True)
        return tuple(max(1, round(voxels * found / wanted)) for voxels, found, wanted in sizes)
