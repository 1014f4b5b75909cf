"""Theoretical receptive fields: which voxels of the image a voxel of a feature map depends on, along one axis.

In a chain of convolutions the field grows by r = r + (k - 1) * jump (Araujo et al. 2019, Distill,
doi:10.23915/distill.00021). In a decoder the recursion has no single answer: of two voxels that share a coarse
voxel, one looks further to the left and the other to the right. So the interval of every voxel is followed.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Reach:
    """First and last voxel of the image that each voxel of a map depends on, along one axis.

    The pattern repeats: voxel ``i + len(first)`` depends on the same voxels as voxel ``i``, ``period`` further on.
    Borders are left out, as if image and maps had no end.

    Attributes:
        period: Voxels of the image after which the pattern repeats.
        first: First voxel, for the map's voxels within one period.
        last: Last voxel.

    Examples:
        >>> image = Reach.of_image(period=2)
        >>> conv = image.window(kernel=3)
        >>> pool = conv.window(kernel=2, stride=2)
        >>> conv.width, pool.width, pool.repeat(2).window(kernel=3).width
        (3, 4, 6)
    """

    period: int
    first: tuple[int, ...]
    last: tuple[int, ...]

    @classmethod
    def of_image(cls, period: int) -> "Reach":
        """The image itself; ``period`` is the product of all strides along the axis."""
        return cls(period, tuple(range(period)), tuple(range(period)))

    @property
    def width(self) -> int:
        """Voxels of the image from the first to the last that a voxel depends on, at most."""
        return max(last - first for first, last in zip(self.first, self.last, strict=True)) + 1

    def window(self, kernel: int, stride: int = 1, padding: int | None = None) -> "Reach":
        """Read ``kernel`` neighbouring voxels at every ``stride``-th voxel, as convolution and pooling do.

        Args:
            kernel: Voxels that are read.
            stride: Step between windows; it must divide the period that is left.
            padding: Voxels by which the first window begins before the map; half the kernel if it is odd, else 0.
        """
        before = padding if padding is not None else kernel // 2 if kernel % 2 else 0
        starts = [index * stride - before for index in range(len(self.first) // stride)]
        return self._read(starts, [start + kernel - 1 for start in starts])

    def repeat(self, factor: int) -> "Reach":
        """Write every voxel ``factor`` times, as a transposed convolution whose kernel is its stride does."""
        sources = [index // factor for index in range(len(self.first) * factor)]
        return self._read(sources, sources)

    def interpolate(self, factor: int) -> "Reach":
        """Read the two nearest voxels, as linear interpolation to ``factor`` times the size does."""
        # The centre of voxel i lies at (i + 1/2) / factor - 1/2 of the coarse map.
        centres = [2 * index + 1 - factor for index in range(len(self.first) * factor)]
        return self._read([c // (2 * factor) for c in centres], [-(-c // (2 * factor)) for c in centres])

    def join(self, other: "Reach") -> "Reach":
        """Depend on what either map depends on; both must have the same voxels."""
        first = tuple(map(min, self.first, other.first))
        return Reach(self.period, first, tuple(map(max, self.last, other.last)))

    def _read(self, starts: list[int], stops: list[int]) -> "Reach":
        """Depend on voxels ``starts`` to ``stops`` of this map."""
        cycle = len(self.first)
        first = tuple(self.first[i % cycle] + i // cycle * self.period for i in starts)
        return Reach(self.period, first, tuple(self.last[i % cycle] + i // cycle * self.period for i in stops))
