"""Random changes of a training patch: albumentations for 2-D, MONAI for 3-D.

Both run on images in [0, 1]: outside of it albumentations clips silently and makes NaN. Each call is seeded
anew by the sample's own random numbers, so that a patch depends on its number alone.
"""

import math
import os
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from segmentation.config import AugmentSettings


class Augmentation(Protocol):
    """Turns a patch with a margin into a changed patch without."""

    patch_size: tuple[int, ...]
    """Spatial shape of the patch that comes back."""
    margin_size: tuple[int, ...]
    """Spatial shape of the patch to hand over: as much more on both sides of an axis."""

    def __call__(
        self, image: NDArray[np.float32], labels: NDArray[np.uint8], rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Change a patch.

        Args:
            image: Values in [0, 1], shape ``(C, *margin_size)``.
            labels: Class indices, shape ``(*margin_size)``.
            rng: The sample's random numbers.

        Returns:
            Image of shape ``(C, *patch_size)`` in [0, 1] and labels of shape ``(*patch_size)``.
        """
        ...


def build_augmentation(settings: AugmentSettings, patch_size: Sequence[int]) -> Augmentation:
    """Choose the augmentation for patches of ``patch_size``: 2-D, 3-D, or none for strength 0."""
    if settings.strength == 0:
        return NoAugmentation(tuple(patch_size))
    return (PictureAugmentation if len(patch_size) == 2 else VolumeAugmentation)(settings, tuple(patch_size))


def with_margin(settings: AugmentSettings, patch_size: Sequence[int]) -> tuple[int, ...]:
    """Patch size plus what a rotation and a zoom may pull into view, about a half more on each axis at most.

    The margin is equal on both sides: the middle of an odd one would fall between voxels, and MONAI would
    then interpolate even the patches that it does not turn.

    Examples:
        >>> with_margin(AugmentSettings(rotate_degrees=0, scale=0.1), (40, 17))
        (44, 19)
    """
    angle = math.radians(min(settings.rotate_degrees * settings.strength, 45))
    largest = max(patch_size)
    zoom = 1 + settings.scale * settings.strength
    reach = [zoom * (p * math.cos(angle) + largest * math.sin(angle)) for p in patch_size]
    return tuple(p + 2 * math.ceil((min(1.5 * p, r) - p) / 2) for p, r in zip(patch_size, reach, strict=True))


def random_seed(rng: np.random.Generator) -> int:
    """Draw a seed that every random generator accepts."""
    return int(rng.integers(2**31))


class NoAugmentation:
    """Leaves patches as they are."""

    def __init__(self, patch_size: tuple[int, ...]) -> None:
        self.patch_size = self.margin_size = patch_size

    def __call__(
        self, image: NDArray[np.float32], labels: NDArray[np.uint8], rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Return image, shape ``(C, *S)``, and labels, shape ``(*S)``, unchanged."""
        return image, labels


class PictureAugmentation:
    """Rotation, zoom, mirroring, and changes of contrast, brightness, noise and sharpness of 2-D patches."""

    def __init__(self, settings: AugmentSettings, patch_size: tuple[int, ...]) -> None:
        # Without this, albumentations asks PyPI for a newer version whenever it is imported.
        os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
        # albumentations takes a second to import, and 3-D training never needs it.
        import albumentations as A
        import cv2

        cv2.setNumThreads(0)  # The loader decides about threads, and results must not depend on them.
        s = settings.strength
        self.patch_size, self.margin_size = patch_size, with_margin(settings, patch_size)
        flips = {0: A.VerticalFlip(p=0.5), 1: A.HorizontalFlip(p=0.5)}
        steps: list[Any] = [
            A.Affine(
                scale=(1 - settings.scale * s / (1 + settings.scale * s), 1 + settings.scale * s),
                rotate=(-settings.rotate_degrees * s, settings.rotate_degrees * s),
                border_mode=cv2.BORDER_REFLECT_101,
                p=0.6,
            ),
            A.CenterCrop(height=patch_size[0], width=patch_size[1]),
            *(flips[axis] for axis in settings.flip_axes or []),
            A.RandomBrightnessContrast(0.15 * s, 0.25 * s, p=0.3),
            A.RandomGamma((round(100 / (1 + 0.4 * s)), round(100 * (1 + 0.4 * s))), p=0.3),
            A.GaussNoise(std_range=(0.0, 0.06 * s), p=0.15),
            A.GaussianBlur(blur_limit=0, sigma_limit=(0.3, 0.3 + 0.9 * s), p=0.15),
            A.Downscale(scale_range=(1 / (1 + s), 0.95), p=0.1),
        ]
        self.transform = A.Compose(steps)

    def __call__(
        self, image: NDArray[np.float32], labels: NDArray[np.uint8], rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Change image, shape ``(C, H, W)`` in [0, 1], and labels, shape ``(H, W)``."""
        if image.min() < 0 or image.max() > 1:
            raise ValueError(f"images must be in [0, 1] here, got [{image.min()}, {image.max()}]")
        self.transform.set_random_seed(random_seed(rng))
        result = self.transform(image=np.ascontiguousarray(np.moveaxis(image, 0, -1)), mask=labels)
        changed = np.clip(np.moveaxis(result["image"], -1, 0), 0, 1)
        return np.ascontiguousarray(changed, dtype=np.float32), np.ascontiguousarray(result["mask"])


class VolumeAugmentation:
    """Rotation, zoom, mirroring, and changes of contrast, brightness, noise and sharpness of 3-D patches."""

    def __init__(self, settings: AugmentSettings, patch_size: tuple[int, ...]) -> None:
        # MONAI takes seconds to import, and 2-D training never needs it.
        from monai import transforms as mt

        s = settings.strength
        self.patch_size, self.margin_size = patch_size, with_margin(settings, patch_size)
        angle = math.radians(settings.rotate_degrees * s)
        # Thick or flat patches turn about their short axis only, as a tilted one would leave the volume.
        flat = min(patch_size) * 2 < max(patch_size)
        short = int(np.argmin(patch_size))
        turns = [angle if not flat or axis == short else 0.0 for axis in range(3)]
        blur = (0.3, 0.3 + 0.6 * s)
        keys = ("image", "label")
        self.transform: Any = mt.Compose(
            [
                mt.RandAffined(
                    keys,
                    prob=0.6,
                    rotate_range=turns,
                    scale_range=[settings.scale * s] * 3,
                    spatial_size=patch_size,
                    mode=("bilinear", "nearest"),
                    padding_mode=("border", "border"),
                ),
                mt.CenterSpatialCropd(keys, patch_size),
                *(mt.RandFlipd(keys, prob=0.5, spatial_axis=axis) for axis in settings.flip_axes or []),
                mt.RandScaleIntensityd("image", factors=0.2 * s, prob=0.3),
                mt.RandShiftIntensityd("image", offsets=0.08 * s, prob=0.3),
                mt.RandAdjustContrastd("image", prob=0.3, gamma=(1 / (1 + 0.4 * s), 1 + 0.4 * s)),
                mt.RandGaussianNoised("image", prob=0.15, std=0.03 * s),
                mt.RandGaussianSmoothd("image", sigma_x=blur, sigma_y=blur, sigma_z=blur, prob=0.15),
            ]
        )

    def __call__(
        self, image: NDArray[np.float32], labels: NDArray[np.uint8], rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Change image, shape ``(C, I, J, K)`` in [0, 1], and labels, shape ``(I, J, K)``."""
        self.transform.set_random_state(seed=random_seed(rng))
        result = self.transform({"image": image, "label": labels[None]})
        changed = np.clip(np.asarray(result["image"], dtype=np.float32), 0, 1)
        return np.ascontiguousarray(changed), np.ascontiguousarray(np.asarray(result["label"])[0].astype(np.uint8))
