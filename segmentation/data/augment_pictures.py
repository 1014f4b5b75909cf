"""Random changes of 2-D patches, by albumentations."""

import math
import os
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segmentation.config import AugmentSettings

Image = NDArray[np.float32]
Labels = NDArray[np.uint8]


class PictureAugmentation:
    """Rotation, zoom, mirroring, and changes of contrast, brightness, noise and sharpness of 2-D patches.

    Args:
        settings: How strong.
        patch_size: Spatial shape of the patches that come out.
    """

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
            _low_resolution(min(0.95, 1 / (1 + s)), 0.95),
        ]
        self.transform = A.Compose(steps)
        self.turn = Lock()

    def draw(self, rng: np.random.Generator) -> "PictureChange":
        """Draw the seed of one patch's changes."""
        return PictureChange(self.transform, self.margin_size, int(rng.integers(2**31)), self.turn)


@dataclass(frozen=True)
class PictureChange:
    """What albumentations does from one seed on.

    Attributes:
        transform: All changes.
        size: Spatial shape to hand over: the patch with a margin.
        seed: Decides the changes.
        turn: Held while they are made, as ``transform`` keeps the seed.
    """

    transform: Any
    size: tuple[int, ...]
    seed: int
    turn: Lock

    def __call__(self, image: Image, labels: Labels) -> tuple[Image, Labels]:
        """Change image, shape ``(C, *size)`` in [0, 1], and labels, shape ``(*size)``.

        Raises:
            ValueError: If the image leaves [0, 1], where albumentations would clip it and make NaN.
        """
        if image.min() < 0 or image.max() > 1:
            raise ValueError(f"images must be in [0, 1] here, got [{image.min()}, {image.max()}]")
        with self.turn:
            self.transform.set_random_seed(self.seed)
            result = self.transform(image=np.ascontiguousarray(np.moveaxis(image, 0, -1)), mask=labels)
        changed = np.clip(np.moveaxis(result["image"], -1, 0), 0, 1)
        return np.ascontiguousarray(changed, dtype=np.float32), np.ascontiguousarray(result["mask"])


def _low_resolution(least: float, most: float) -> Any:
    """Lower the resolution as ``Downscale`` does, but the picture stays in its place, and thin lines in the picture.

    Downscale takes the upper left one of the pixels that become one, and enlarges by another factor than it had
    shrunk by, since it rounds the size between: pictures move against their labels, by one to three pixels.
    """
    import albumentations as A
    import cv2
    from albumentations.augmentations.geometric.functional import resize

    class LowResolution(A.Downscale):
        """Shrunk by means over areas, enlarged by linear interpolation."""

        def apply(self, img: Image, scale: float, **_: Any) -> Image:
            """Change a picture, shape ``(rows, columns, C)``."""
            size = img.shape[:2]
            less = (max(1, round(size[0] * scale)), max(1, round(size[1] * scale)))
            return resize(resize(img, less, cv2.INTER_AREA), size, cv2.INTER_LINEAR)

    return LowResolution(scale_range=(least, most), p=0.1)


def with_margin(settings: AugmentSettings, patch_size: tuple[int, ...]) -> tuple[int, ...]:
    """Patch size plus what a rotation and a zoom may pull into view, about a half more on each axis at most.

    The margin is equal on both sides, so that the middle of the patch stays the middle.

    Examples:
        >>> with_margin(AugmentSettings(rotate_degrees=0, scale=0.1), (40, 17))
        (44, 19)
    """
    angle = math.radians(min(settings.rotate_degrees * settings.strength, 45))
    largest = max(patch_size)
    zoom = 1 + settings.scale * settings.strength
    reach = [zoom * (p * math.cos(angle) + largest * math.sin(angle)) for p in patch_size]
    return tuple(p + 2 * math.ceil((min(1.5 * p, r) - p) / 2) for p, r in zip(patch_size, reach, strict=True))
