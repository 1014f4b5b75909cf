"""From a scan to a label map in its own frame: prepare, slide, restore, decide, one plane at a time."""

import itertools
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from segmentation import SkipSegError
from segmentation.data.hardware import memory_now, peak_memory
from segmentation.data.preprocessing import Preprocessing
from segmentation.data.transforms import (
    canonical_zeros,
    plane_axis,
    prepare_image,
    restore_planes,
    stack_context,
    to_scan_frame,
)
from segmentation.inference.backend import Backend
from segmentation.inference.backends import CheckedBackend, open_backend
from segmentation.inference.memory import of_planes
from segmentation.inference.postprocess import Step, apply_steps, common_steps
from segmentation.inference.uncertainty import entropy, most_probable, variance
from segmentation.inference.window import Cut, Place, SlidingWindow, WindowCount
from segmentation.model.folder import read_description
from segmentation.scans import Scan
from segmentation.scans.workspace import Workspace

MOST_VOXELS = 2**33
"""Voxels that a scan may have at the model's spacing; one of 2000 x 2000 x 2000 has fewer."""

Extra = Literal["probabilities", "entropy", "variance"]
"""Maps that a prediction can give beside the label map."""


@dataclass(frozen=True)
class Segmentation:
    """What a model says about a scan, in the scan's own frame.

    Attributes:
        label_map: Label values, shape ``(*S)``.
        extras: Probabilities of shape ``(K, *S)``; entropy and variance of shape ``(*S)``.
        windows: Windows computed, and windows known without computing.
    """

    label_map: NDArray[np.unsignedinteger[Any]]
    extras: Mapping[Extra, NDArray[np.float32]]
    windows: WindowCount


@dataclass(frozen=True)
class Predictor:
    """One trained network, or several that are averaged, with everything that turns a scan into a label map.

    Attributes:
        backends: What computes probabilities, one for each network.
        preprocessing: What was done to the scans that they learnt from.
        labels: Class name to label value, background included.
        channel_names: Meaning of each input channel.
        patch_size: Window, one value a network axis.
        flip_axes: Network axes that mirroring turns.
        mirror: Average over mirrored copies.
        steps: Post-processing.
        overlap: Share by which windows overlap, in [0, 1).
        batch_size: Windows computed at a time; ``None`` as many as the hardware has room for.
        codes: Codes that the dataset gives for its classes, as for :func:`segmentation.scans.terms.term`.
    """

    backends: Sequence[Backend]
    preprocessing: Preprocessing
    labels: Mapping[str, int]
    channel_names: Sequence[str]
    patch_size: Sequence[int]
    flip_axes: Sequence[int]
    mirror: bool
    steps: Sequence[Step] = ()
    overlap: float = 0.5
    batch_size: int | None = None
    codes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @classmethod
    def load(
        cls,
        folders: Path | Sequence[Path],
        *,
        mirror: bool | None = None,
        postprocess: bool = True,
        overlap: float = 0.5,
        batch_size: int | None = None,
        backend: str = "torch",
        device: str = "cpu",
        threads: int = 0,
        compiled: bool = False,
    ) -> "Predictor":
        """Load one model folder, or several of one kind.

        Args:
            folders: Each holds model.json and model.safetensors.
            mirror: Average over mirrored copies; ``None`` does as the first model says.
            postprocess: Apply the steps that validation cases chose for all models.
            overlap: Share by which windows overlap, in [0, 1).
            batch_size: Windows computed at a time.
            backend: As of :func:`~segmentation.inference.backends.open_backend`.
            device: ``"cpu"`` or ``"cuda"``.
            threads: CPU threads; 0 takes all cores.
            compiled: Let PyTorch compile the networks first.

        Raises:
            SkipSegError: If a folder holds no readable model, or the models do not belong together.
        """
        paths = [folders] if isinstance(folders, Path) else list(folders)
        abouts = [read_description(path) for path in paths]
        about = abouts[0]
        opened = partial(open_backend, backend=backend, device=device, threads=threads, compiled=compiled)
        try:
            _check_alike(paths, abouts)
            return cls(
                [opened(path) for path in paths],
                Preprocessing.from_plain(about["preprocessing"]),
                about["labels"],
                about["channel_names"],
                about["patch_size"],
                about["flip_axes"],
                about["mirror"] if mirror is None else mirror,
                common_steps(abouts, chosen=postprocess),
                overlap,
                batch_size,
                about.get("codes", {}),
            )
        except (KeyError, TypeError) as error:
            raise SkipSegError(f"{paths[0]}/model.json does not say how to predict ({error}); train anew") from None

    def __call__(self, scan: Scan) -> NDArray[np.unsignedinteger[Any]]:
        """Segment ``scan``: label values in the scan's own frame, shape as ``scan.spatial_shape``.

        Raises:
            SkipSegError: If the scan has other channels or axes than the model, or holds NaN or infinity.
        """
        return self.segment(scan).label_map

    def segment(
        self,
        scan: Scan,
        extras: Collection[Extra] = (),
        workspace: Workspace | None = None,
        progress: Callable[[int, int], object] = lambda done, total: None,
    ) -> Segmentation:
        """Segment ``scan`` within the memory of ``workspace``.

        Args:
            scan: As it was read.
            extras: Maps wanted beside the label map; the variance needs several networks.
            workspace: Where large arrays lie; ``None`` takes memory.
            progress: Told how many windows are done, and of how many.

        Raises:
            SkipSegError: If the scan has other channels or axes than the model, or holds NaN or infinity.
        """
        space = workspace or Workspace()
        self.check(scan, space)
        framed = self.preprocessing.framed(scan)
        with space.reserved(of_planes(framed, self.preprocessing, self._members(extras) * len(self.labels))):
            image = prepare_image(framed, self.preprocessing, space)
            return self._segment(image, framed, extras, space, progress)

    def label_map(self, image: NDArray[np.float32], scan: Scan) -> NDArray[np.unsignedinteger[Any]]:
        """Segment a prepared image, shape ``(C, *S)``: label values in the frame of the ``scan`` that it comes from."""
        framed = self.preprocessing.framed(scan)
        return self._segment(image, framed, (), Workspace(), lambda done, total: None).label_map

    def warm_up(self) -> int:
        """Make what is made once, and let the most memory be taken once, by computing an empty window.

        If an earlier run has measured that memory, nothing is computed: one network is made ready meanwhile.

        Returns:
            Bytes that will still be taken, beyond what this process takes now.
        """
        count = self._at_once()
        shape = (count, self.preprocessing.network_channels, *self.patch_size)
        first, *others = self.backends
        checked = first if isinstance(first, CheckedBackend) and not others else None
        if checked and (expected := checked.expect(shape)) is not None:
            return expected
        before = memory_now()
        # Filled, as memory is given when it is written to. All windows but the first may still wait to be blended.
        empty = np.full(shape, 0, np.float32)
        waiting = np.full((count - 1, len(self.labels), *self.patch_size), 0, np.float32)
        with ThreadPoolExecutor(1) as thread:  # as windows are computed: PyTorch has work memory for each thread
            for backend in self.backends:
                thread.submit(backend, empty, [()]).result()
        del waiting
        if checked:
            checked.keep_memory(shape, peak_memory() - before)
        return 0

    def _segment(
        self,
        image: NDArray[np.float32],
        scan: Scan,
        extras: Collection[Extra],
        space: Workspace,
        progress: Callable[[int, int], object],
    ) -> Segmentation:
        """Slide over a prepared image, shape ``(C, *S)``, and decide plane by plane what the scan's voxels are."""
        axis = plane_axis(scan, self.preprocessing)
        across = axis if self.preprocessing.slice_axis is None else 0  # the slice axis of a prepared image is its first
        members = self._members(extras)
        classes = len(self.labels)
        dtype = np.uint8 if classes <= 256 else np.uint16
        maps: dict[Extra, NDArray[Any]] = {
            name: canonical_zeros(scan, axis, np.float32, space, classes if name == "probabilities" else None)
            for name in extras
        }
        decided = canonical_zeros(scan, axis, dtype, space)
        slide = self._slide(members > 1, space)
        slide.after_windows = lambda: progress(slide.count.computed + slide.count.known, slide.total(image.shape[1:]))
        planes = slide.planes(self._cut(image), image.shape[1:], across)
        prepared = self.preprocessing.prepared_shape(scan)
        for index, plane in enumerate(restore_planes(planes, prepared, scan, self.preprocessing)):
            each = plane.reshape(members, -1, *plane.shape[1:])
            mean = each[0] if members == 1 else each.mean(axis=0)
            most_probable(mean, out=decided[index])
            for name, values in maps.items():
                values[index] = (
                    mean if name == "probabilities" else entropy(mean) if name == "entropy" else variance(each)
                )
            space.release()
        label_map = to_scan_frame(decided, scan, axis)
        finished = apply_steps(label_map, self.steps, scan.spacing_mm, space) if self.steps else label_map
        extra_maps: dict[Extra, NDArray[Any]] = {
            name: to_scan_frame(values, scan, axis) for name, values in maps.items()
        }
        return Segmentation(finished, extra_maps, slide.count)

    def _members(self, extras: Collection[Extra]) -> int:
        """How many networks are kept apart: the variance between them needs each, all else their mean."""
        return len(self.backends) if "variance" in extras else 1

    def _cut(self, image: NDArray[np.float32]) -> Cut:
        """Give windows of a prepared image, shape ``(C, *S)``; a slice has its neighbours as channels."""

        def window(place: Place) -> NDArray[np.float32]:
            return image[(slice(None), *place)]

        def window_of_slice(place: Place) -> NDArray[np.float32]:
            part = image[(slice(None), slice(None), *place[1:])]
            return stack_context(part, [place[0].start], self.preprocessing.context_slices)[0][:, None]

        return window if self.preprocessing.slice_axis is None else window_of_slice

    def _slide(self, apart: bool, space: Workspace) -> SlidingWindow:
        """Sliding window of all networks: their mean, or each by itself where ``apart``."""
        axes = [axis + 2 for axis in self.flip_axes] if self.mirror else []
        flips = [flip for count in range(len(axes) + 1) for flip in itertools.combinations(axes, count)]
        sliced = self.preprocessing.slice_axis is not None

        def network(images: NDArray[np.float32]) -> NDArray[np.float32]:
            batch = images[:, :, 0] if sliced else images
            found = [backend(batch, flips) for backend in self.backends]
            result = found[0] if len(found) == 1 else np.concatenate(found, 1) if apart else np.mean(found, axis=0)
            return result[:, :, None] if sliced else result

        window = (1, *self.patch_size) if sliced else self.patch_size
        return SlidingWindow(network, window, self.overlap, self._at_once(), space)

    def _at_once(self) -> int:
        """Windows computed at a time."""
        return self.batch_size or min(backend.batch_room(self.patch_size) for backend in self.backends)

    def check(self, scan: Scan, space: Workspace) -> None:
        """Refuse a scan that the model was not made for.

        Raises:
            SkipSegError: If it has other channels or axes than the model, or holds NaN or infinity.
        """
        dims = len(self.preprocessing.spacing_mm)
        if scan.spatial_dims != dims:
            kinds = {2: "a picture", 3: "a volume"}
            raise SkipSegError(f"{scan.source} is {kinds[scan.spatial_dims]}, but this model segments {kinds[dims]}")
        if len(scan.array) != len(self.channel_names):
            names = ", ".join(self.channel_names)
            raise SkipSegError(f"{scan.source} has {len(scan.array)} channels, but this model reads {names}")
        if math.prod(self.preprocessing.prepared_shape(scan)) > MOST_VOXELS:
            spacing = ", ".join(f"{size:.4g}" for size in scan.spacing_mm)
            raise SkipSegError(
                f"{scan.source} has voxels of ({spacing}) mm, and more than {MOST_VOXELS:.3g} voxels at the model's "
                "spacing; is its header right?"
            )
        if scan.array.dtype.kind == "f":
            slowest = int(np.argmax(np.abs(scan.array.strides[1:]))) + 1
            for plane in np.moveaxis(scan.array, slowest, 0):
                if not np.isfinite(plane).all():
                    raise SkipSegError(f"{scan.source} holds NaN or infinite intensities; repair the scan first")
                space.release()


def _check_alike(paths: Sequence[Path], abouts: Sequence[Mapping[str, Any]]) -> None:
    """Refuse models that cannot be averaged; they may differ in mean and deviation, which each applies itself."""
    for path, about in zip(paths[1:], abouts[1:], strict=True):
        for name in ("labels", "channel_names", "patch_size", "flip_axes", "preprocessing"):
            if _compared(abouts[0], name) != _compared(about, name):
                raise SkipSegError(f"{paths[0]} and {path} cannot be averaged: they differ in {name}")


def _compared(about: Mapping[str, Any], name: str) -> Any:
    """What of an entry of model.json must agree in all models of an ensemble."""
    if name != "preprocessing":
        return about[name]
    found = Preprocessing.from_plain(about[name])
    return replace(found, normalisation=tuple(replace(n, mean=0.0, std=1.0) for n in found.normalisation))
