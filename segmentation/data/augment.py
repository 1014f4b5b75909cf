"""Random changes of a training patch: albumentations for pictures, OpenCV and NumPy for volumes.

All draws come from the sample's own random numbers, so a patch depends on its number alone. Images stay in [0, 1].
What happens to a volume is drawn first, so that no more is read than the drawn rotation and zoom bring into view.

With strength s, ``rotate_degrees`` r and ``scale`` z, a volume is changed in this order:

=====================  ======  ==================================================================================
change                 chance  drawn evenly from
=====================  ======  ==================================================================================
turned and zoomed      0.6     angles within r s about each axis, and a step of 1 - z s to 1 + z s along each
mirrored               0.5     for each of the flip axes
contrast               0.3     a factor of 1 - c to 1 + c, c = 0.2 s
brightness             0.3     added -b to b, b = 0.08 s
gamma                  0.3     an exponent of 1 / (1 + 0.4 s) to 1 + 0.4 s, between the patch's extremes
noise                  0.15    Gaussian, of a deviation up to 0.03 s
blur                   0.15    Gaussian, of 0.3 to 0.3 + 0.6 s voxels along each axis
=====================  ======  ==================================================================================

A picture is changed alike, with these differences: one zoom, and one blur, for both axes; a zoom to 1 / (1 + z s) to
1 + z s of the size; contrast (c = 0.25 s) and brightness (b = 0.15 s) together or not at all; gamma between 0 and 1;
noise of up to 0.06 s, blur of up to 0.3 + 0.9 s; and last, in a tenth of the patches, a resolution of 1 / (1 + s) to
0.95, enlarged again.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from segmentation.config import AugmentSettings
from segmentation.data import intensity
from segmentation.data.augment_pictures import PictureAugmentation
from segmentation.data.warp import LINEAR, NEAREST, needed_size, rotation, warp

Image = NDArray[np.float32]
Labels = NDArray[np.uint8]


class Change(Protocol):
    """What the random numbers of one sample chose."""

    @property
    def size(self) -> tuple[int, ...]:
        """Spatial shape to hand over, its middle that of the patch."""
        ...

    def __call__(self, image: Image, labels: Labels) -> tuple[Image, Labels]:
        """Change a patch.

        Args:
            image: Values in [0, 1], shape ``(C, *size)``; it may be overwritten.
            labels: Class indices, shape ``(*size)``.

        Returns:
            Image of shape ``(C, *patch_size)`` in [0, 1] and labels of shape ``(*patch_size)``.
        """
        ...


class Augmentation(Protocol):
    """Draws how patches change."""

    @property
    def patch_size(self) -> tuple[int, ...]:
        """Spatial shape of the patches that come out."""
        ...

    def draw(self, rng: np.random.Generator) -> Change:
        """Draw what happens to one patch; consumes random numbers of ``rng``."""
        ...


def build_augmentation(settings: AugmentSettings, patch_size: Sequence[int]) -> Augmentation:
    """Choose the augmentation for patches of ``patch_size``: none for strength 0."""
    if settings.strength == 0:
        return NoAugmentation(tuple(patch_size))
    return (PictureAugmentation if len(patch_size) == 2 else VolumeAugmentation)(settings, tuple(patch_size))


@dataclass(frozen=True)
class NoAugmentation:
    """Leaves patches as they are."""

    patch_size: tuple[int, ...]

    @property
    def size(self) -> tuple[int, ...]:
        """What is handed over comes back."""
        return self.patch_size

    def draw(self, rng: np.random.Generator) -> Change:
        """Draw nothing."""
        return self

    def __call__(self, image: Image, labels: Labels) -> tuple[Image, Labels]:
        """Return image, shape ``(C, *S)``, and labels, shape ``(*S)``, unchanged."""
        return image, labels


class VolumeAugmentation:
    """All changes of the table above, for volumes.

    Args:
        settings: How strong.
        patch_size: Spatial shape of the patches that come out.
    """

    def __init__(self, settings: AugmentSettings, patch_size: tuple[int, ...]) -> None:
        cv2.setNumThreads(0)  # The loader decides about threads.
        s = settings.strength
        self.patch_size = patch_size
        self.flip_axes = settings.flip_axes or []
        self.turns = _turns(patch_size, math.radians(settings.rotate_degrees * s))
        self.zoom = settings.scale * s
        self.contrast, self.brightness = 0.2 * s, 0.08 * s
        self.gamma = (1 / (1 + 0.4 * s), 1 + 0.4 * s)
        self.noise = 0.03 * s
        self.blur = (0.3, 0.3 + 0.6 * s)

    def draw(self, rng: np.random.Generator) -> "VolumeChange":
        """Draw what happens to one patch."""

        def chance(share: float) -> bool:
            return bool(rng.random() < share)

        matrix = None
        if chance(0.6):
            steps = rng.uniform(max(1 - self.zoom, 0.1), 1 + self.zoom, 3)
            matrix = rotation(rng.uniform(-self.turns, self.turns)) * steps
        mirrored = tuple(axis for axis in self.flip_axes if chance(0.5))
        changes: list[Callable[[Image], Image]] = []
        if chance(0.3):
            changes.append(partial(intensity.scale, factor=rng.uniform(1 - self.contrast, 1 + self.contrast)))
        if chance(0.3):
            changes.append(partial(intensity.shift, offset=rng.uniform(-self.brightness, self.brightness)))
        if chance(0.3):
            changes.append(partial(intensity.gamma, exponent=rng.uniform(*self.gamma)))
        if chance(0.15):
            changes.append(partial(intensity.add_noise, deviation=rng.uniform(0, self.noise), seed=_seed(rng)))
        if chance(0.15):
            changes.append(partial(intensity.blur, sigmas=rng.uniform(*self.blur, 3)))
        return VolumeChange(self.patch_size, matrix, mirrored, tuple(changes))


@dataclass(frozen=True)
class VolumeChange:
    """A drawn change.

    Attributes:
        patch_size: Spatial shape of the patch that comes out.
        matrix: From voxels of the new patch to those of the old one, about their middles, shape ``(3, 3)``;
            ``None`` leaves the patch where it is.
        mirrored: Axes along which it is mirrored then.
        changes: Done to the image in this order.
    """

    patch_size: tuple[int, ...]
    matrix: NDArray[np.float64] | None
    mirrored: tuple[int, ...]
    changes: tuple[Callable[[Image], Image], ...]

    @property
    def size(self) -> tuple[int, ...]:
        """As much as the turned patch reaches."""
        return self.patch_size if self.matrix is None else needed_size(self.matrix, self.patch_size)

    def __call__(self, image: Image, labels: Labels) -> tuple[Image, Labels]:
        """Change image, shape ``(C, *size)`` in [0, 1], and labels, shape ``(*size)``."""
        if self.matrix is not None:
            image = np.stack([warp(channel, self.matrix, self.patch_size, LINEAR) for channel in image])
            labels = warp(labels, self.matrix, self.patch_size, NEAREST)
        labels = np.ascontiguousarray(np.flip(labels, self.mirrored))
        image = np.ascontiguousarray(np.flip(image, tuple(axis + 1 for axis in self.mirrored)))
        for change in self.changes:
            image = change(image)
        return (np.clip(image, 0, 1, out=image) if self.changes else image), labels


def _turns(patch_size: Sequence[int], angle: float) -> NDArray[np.float64]:
    """Largest angle about each axis.

    Thick or flat patches turn about their short axis alone, as a tilted one would leave the volume.
    """
    if min(patch_size) * 2 >= max(patch_size):
        return np.full(3, angle)
    return np.where(np.arange(3) == np.argmin(patch_size), angle, 0.0)


def _seed(rng: np.random.Generator) -> int:
    """A seed for the noise of one patch."""
    return int(rng.integers(2**63))
