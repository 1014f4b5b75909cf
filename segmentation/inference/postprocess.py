"""Steps that mend a label map after the network: keep the largest component, remove small ones, fill holes.

Voxels of a class that touch at a face, an edge or a corner are one component (26 neighbours in 3-D, 8 in 2-D), as
where lesions are counted. A hole is what the class closes off from the outside, moving from face to face. No step
depends on how the array lies in memory or in space. Which steps a model takes is chosen in
:mod:`segmentation.inference.choose`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Self, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from segmentation import SkipSegError
from segmentation.inference.regions import Mask, Regions, class_boxes, memory_order
from segmentation.metrics.masks import check_spacing
from segmentation.scans.workspace import Workspace

Label = TypeVar("Label", bound=np.integer[Any])
Kind = Literal["keep_largest", "remove_small", "fill_holes"]


@dataclass(frozen=True)
class Step:
    """One change of one class.

    Attributes:
        kind: ``"keep_largest"`` turns all but the largest component into background; components of exactly the
            same size all stay, so that no turned scan gives another answer. ``"remove_small"`` turns components
            smaller than ``minimum_mm3`` into background. ``"fill_holes"`` gives the class the background inside
            it; a hole that holds voxels of another class stays as it is, and what reaches the border of the scan
            is no hole.
        label: Value of the class.
        minimum_mm3: Least volume of a component, in mm3 (pixels for a picture); of ``"remove_small"`` alone.

    Raises:
        SkipSegError: If the kind is unknown, the label is not a whole number above 0, or a minimum is missing or
            has no meaning.
    """

    kind: Kind
    label: int
    minimum_mm3: float = 0.0

    def __post_init__(self) -> None:
        """Check each value."""
        if self.kind not in get_args(Kind):
            raise SkipSegError(f"a step must be one of {', '.join(get_args(Kind))}, got {self.kind!r}")
        if type(self.label) is not int or self.label < 1:
            raise SkipSegError(f"a step changes one class: its label must be a whole number above 0, got {self.label}")
        positive = 0 < self.minimum_mm3 < math.inf
        if not (positive if self.kind == "remove_small" else self.minimum_mm3 == 0):
            raise SkipSegError(
                f"minimum_mm3 must be above 0 for remove_small and 0 for other steps, got {self.minimum_mm3} "
                f"for {self.kind}"
            )

    def to_plain(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Self:
        """Read what :meth:`to_plain` wrote.

        Raises:
            SkipSegError: If ``plain`` is not a step.

        Examples:
            >>> Step.from_plain({"kind": "fill_holes", "label": 2, "minimum_mm3": 0.0})
            Step(kind='fill_holes', label=2, minimum_mm3=0.0)
        """
        try:
            return cls(**plain)
        except TypeError as error:
            raise SkipSegError(f"{plain} is not a step of post-processing ({error}); train anew") from None


def apply_steps(
    label_map: NDArray[Label], steps: Sequence[Step], spacing_mm: Sequence[float], workspace: Workspace | None = None
) -> NDArray[Label]:
    """Apply steps to a label map in place, one after the other.

    The map is walked slab by slab within the box of each class: besides the map itself, memory is that of a slab,
    whatever its size and wherever it lies. A volume of a single slice is treated as that slice.

    Args:
        label_map: Class of every voxel, shape ``(*S)``, 2-D or 3-D; it is changed.
        steps: What to do.
        spacing_mm: Distance between voxel centres along each axis, in mm; ones for a picture.
        workspace: Whose arrays in files leave the memory of the process after each slab.

    Returns:
        ``label_map`` itself.

    Raises:
        SkipSegError: If the map is not an integer one, or the spacing does not fit it.

    Examples:
        >>> label_map = np.array([[1, 1, 1, 0, 0], [1, 0, 1, 0, 2], [1, 1, 1, 0, 0], [0, 0, 0, 1, 0]], np.uint8)
        >>> apply_steps(label_map, [Step("fill_holes", 1), Step("remove_small", 2, minimum_mm3=4)], (1.5, 2.0))
        array([[1, 1, 1, 0, 0],
               [1, 1, 1, 0, 0],
               [1, 1, 1, 0, 0],
               [0, 0, 0, 1, 0]], dtype=uint8)
    """
    if label_map.dtype.kind not in "iu":
        raise SkipSegError(f"steps change a map of integer labels, got dtype {label_map.dtype}; cast it to uint8")
    check_spacing(label_map.shape, spacing_mm)
    release = workspace.release if workspace else _nothing
    single = label_map.ndim == 3 and label_map.shape.count(1) == 1
    view = np.squeeze(label_map) if single else label_map
    view = view.transpose(memory_order(view))
    boxes = class_boxes(view, {step.label for step in steps}, release)
    for step in steps:
        if step.label in boxes:
            change = _fill_holes if step.kind == "fill_holes" else _remove
            change(view[boxes[step.label]], step, voxel_volume(spacing_mm), release)
    release()
    return label_map


def voxel_volume(spacing_mm: Sequence[float]) -> float:
    """Volume of a voxel in mm3, the same whatever the order of the axes."""
    return math.prod(sorted(spacing_mm))


def kept_components(step: Step, voxels: NDArray[np.int64], voxel_mm3: float) -> Mask:
    """Tell which components of a class a step keeps.

    Args:
        step: Of the kind keep_largest or remove_small.
        voxels: Size of each component, shape ``(R,)``.
        voxel_mm3: Volume of a voxel.

    Returns:
        Whether each component stays, shape ``(R,)``.

    Examples:
        >>> kept_components(Step("remove_small", 1, minimum_mm3=6), np.array([1, 2, 3]), voxel_mm3=3.0)
        array([False,  True,  True])
    """
    if step.kind == "keep_largest":
        return voxels == voxels.max(initial=0)
    return voxels * voxel_mm3 >= step.minimum_mm3 * (1 - 1e-9)  # volumes are products of rounded numbers


def common_steps(descriptions: Sequence[Mapping[str, Any]], *, chosen: bool = True) -> list[Step]:
    """Steps that all of several models take, in the order of the first; those of a single model as they are.

    Where the models remove components below different sizes, those below the smallest are removed.

    Args:
        descriptions: Content of model.json of each model.
        chosen: Whether the steps count that validation cases chose, or only those that the training was told.

    Raises:
        SkipSegError: If a description holds something else than steps.

    Examples:
        >>> def model(*steps):
        ...     return {"labels": {"background": 0, "organ": 1}, "postprocess": {"steps": steps}}
        >>> small = [{"kind": "remove_small", "label": 1, "minimum_mm3": size} for size in (8.0, 5.0)]
        >>> common_steps([model({"kind": "fill_holes", "label": 1}, small[0]), model(small[1])])
        [Step(kind='remove_small', label=1, minimum_mm3=5.0)]
    """
    of_models = [_steps_of(description, chosen) for description in descriptions]
    common: list[Step] = []
    for step in of_models[0]:
        same = [[s for s in steps if (s.kind, s.label) == (step.kind, step.label)] for steps in of_models]
        if all(same):
            common.append(replace(step, minimum_mm3=min(found[0].minimum_mm3 for found in same)))
    return common


def _steps_of(description: Mapping[str, Any], chosen: bool) -> list[Step]:
    """Steps of one model: keep_largest for each class if the training was told so, then the chosen ones."""
    try:
        values = sorted(description["labels"].values()) if description.get("keep_largest") else []
        recorded = description.get("postprocess", {}).get("steps", []) if chosen else []
        return [Step("keep_largest", v) for v in values if v > 0] + [Step.from_plain(plain) for plain in recorded]
    except (AttributeError, KeyError, TypeError) as error:
        raise SkipSegError(f"model.json does not hold steps of post-processing ({error}); train anew") from None


def _nothing() -> None:
    """What there is to release without a workspace."""


def _remove(box: NDArray[np.integer[Any]], step: Step, voxel_mm3: float, release: Callable[[], None]) -> None:
    """Turn the components that the step does not keep into background, in a part of the map, shape ``(*S)``."""

    def mask_at(part: slice) -> Mask:
        release()
        return box[part] == step.label

    regions = Regions(box.shape, mask_at, lambda part: [box[part] == step.label], corners=True)
    for part, voxels in regions.where(~kept_components(step, regions.counts[0], voxel_mm3)):
        box[part][voxels] = 0


def _fill_holes(box: NDArray[np.integer[Any]], step: Step, voxel_mm3: float, release: Callable[[], None]) -> None:
    """Give the class the background that it encloses, in a part of the map, shape ``(*S)``, that holds all of it."""

    def outside_at(part: slice) -> Mask:
        release()
        return box[part] != step.label

    def barred_at(part: slice) -> list[Mask]:
        others = (box[part] != step.label) & (box[part] != 0)
        return [others | _on_border(box.shape, part)]

    regions = Regions(box.shape, outside_at, barred_at, corners=False)
    for part, voxels in regions.where(regions.counts[0] == 0):
        box[part][voxels] = step.label


def _on_border(shape: Sequence[int], part: slice) -> Mask:
    """Voxels of a slab of a box of ``shape`` that lie on a face of the box."""
    border = np.ones((part.stop - part.start, *shape[1:]), bool)
    inner = slice(1 if part.start == 0 else 0, -1 if part.stop == shape[0] else None)
    border[(inner, *(slice(1, -1) for _ in shape[1:]))] = False
    return border
