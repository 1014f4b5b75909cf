"""From scans to masks: read, prepare, compute, restore, write, one case at a time."""

import itertools
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from tqdm import tqdm

from segmentation import SkipSegError
from segmentation.config import PredictSettings
from segmentation.data.preprocessing import Preprocessing
from segmentation.data.transforms import prepare_image, restore_label_map, stack_context, standardise
from segmentation.inference.window import sliding_window
from segmentation.model.storage import load_model
from segmentation.model.unet import UNet
from segmentation.scans import Scan, file_ending, find_scans, read_scan, read_series, write_label_map

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Predictor:
    """A trained network with everything that turns a scan into a label map.

    Attributes:
        network: The network, in evaluation mode on ``device``.
        preprocessing: What was done to the scans that it learnt from.
        labels: Class name to label value, background included.
        channel_names: Meaning of each input channel.
        patch_size: Window, one value a network axis.
        flip_axes: Network axes that mirroring turns.
        mirror: Average over mirrored copies.
        keep_largest: Keep the largest connected component of each class.
        overlap: Share by which windows overlap, in [0, 1).
        device: Where to compute.
    """

    network: UNet
    preprocessing: Preprocessing
    labels: Mapping[str, int]
    channel_names: Sequence[str]
    patch_size: Sequence[int]
    flip_axes: Sequence[int]
    mirror: bool
    keep_largest: bool
    overlap: float = 0.5
    device: str = "cpu"

    @classmethod
    def load(
        cls, folder: Path, *, overlap: float = 0.5, mirror: bool | None = None, device: str = "cpu"
    ) -> "Predictor":
        """Load a model folder.

        Args:
            folder: Holds model.json and model.safetensors.
            overlap: Share by which windows overlap, in [0, 1).
            mirror: Average over mirrored copies; ``None`` does as the model says.
            device: ``"cpu"`` or ``"cuda"``.

        Raises:
            SkipSegError: If the folder holds no readable model.
        """
        stored = load_model(folder)
        about = stored.description
        try:
            return cls(
                stored.network.to(device),
                Preprocessing.from_plain(about["preprocessing"]),
                about["labels"],
                about["channel_names"],
                about["patch_size"],
                about["flip_axes"],
                about["mirror"] if mirror is None else mirror,
                about["keep_largest"],
                overlap,
                device,
            )
        except (KeyError, TypeError) as error:
            raise SkipSegError(f"{folder}/model.json does not say how to predict ({error}); train anew") from None

    def __call__(self, scan: Scan) -> NDArray[np.uint8]:
        """Segment ``scan``: label values in the scan's own frame, shape as ``scan.spatial_shape``.

        Raises:
            SkipSegError: If the scan has other channels or axes than the model, or holds NaN or infinity.
        """
        self._check(scan)
        return self.label_map(prepare_image(scan, self.preprocessing), scan)

    def label_map(self, image: NDArray[np.float32], scan: Scan) -> NDArray[np.uint8]:
        """Segment a prepared image, shape ``(C, *S)``: label values in the frame of the ``scan`` that it comes from."""
        label_map = restore_label_map(self.probabilities(image), scan, self.preprocessing)
        return keep_largest_components(label_map) if self.keep_largest else label_map

    def probabilities(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Class probabilities of a prepared image, shape ``(C, *S)``: shape ``(K, *S)``, slice axis first."""
        if self.preprocessing.slice_axis is None:
            return sliding_window(self._softmax, image, self.patch_size, self.overlap, device=self.device)
        slices = [
            sliding_window(self._softmax, stacked, self.patch_size, self.overlap, device=self.device)
            for stacked in stack_context(image, range(image.shape[1]), self.preprocessing.context_slices)
        ]
        return np.stack(slices, axis=1)

    def _softmax(self, images: Tensor) -> Tensor:
        """Probabilities of images, shape ``(B, C, *S)``, averaged over mirrored copies if asked."""
        x = standardise(images, self.preprocessing)
        axes = [axis + 2 for axis in self.flip_axes] if self.mirror else []
        flips: list[tuple[int, ...]] = [f for n in range(len(axes) + 1) for f in itertools.combinations(axes, n)]
        total = torch.zeros((), device=x.device)
        for flip in flips:
            total = total + self.network(x.flip(flip)).float().softmax(dim=1).flip(flip)
        return total / len(flips)

    def _check(self, scan: Scan) -> None:
        """Refuse a scan that the model was not made for."""
        dims = len(self.preprocessing.spacing_mm)
        if scan.spatial_dims != dims:
            kinds = {2: "a picture", 3: "a volume"}
            raise SkipSegError(f"{scan.source} is {kinds[scan.spatial_dims]}, but this model segments {kinds[dims]}")
        if len(scan.array) != len(self.channel_names):
            names = ", ".join(self.channel_names)
            raise SkipSegError(f"{scan.source} has {len(scan.array)} channels, but this model reads {names}")
        if not np.isfinite(scan.array).all():
            raise SkipSegError(f"{scan.source} holds NaN or infinite intensities; repair the scan first")


def keep_largest_components(label_map: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Keep the largest connected component (full connectivity) of each foreground class, shape ``(*S)``.

    Examples:
        >>> keep_largest_components(np.array([[1, 0, 2, 2], [0, 0, 0, 2], [0, 1, 0, 0], [1, 1, 0, 2]], np.uint8))
        array([[0, 0, 2, 2],
               [0, 0, 0, 2],
               [0, 1, 0, 0],
               [1, 1, 0, 0]], dtype=uint8)
    """
    kept = np.zeros_like(label_map)
    components = np.zeros(label_map.shape, np.int32)
    for value in np.unique(label_map[label_map > 0]):
        ndimage.label(label_map == value, np.ones((3,) * label_map.ndim), output=components)
        sizes = np.bincount(components.ravel())
        kept[components == 1 + int(np.argmax(sizes[1:]))] = value
    return kept


def resolve_device(device: str) -> str:
    """Turn ``"auto"`` into ``"cuda"`` where there is one, else ``"cpu"``.

    Raises:
        SkipSegError: If ``"cuda"`` is asked for and not there.
    """
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise SkipSegError("device cuda was asked for, but PyTorch finds no CUDA device; run `skipseg doctor`")
    return "cuda" if available and device != "cpu" else "cpu"


def predict(settings: PredictSettings) -> list[Path]:
    """Segment every scan of ``settings.input``; a mask that stands already is computed anew.

    One bad scan never stops the others: it is named at the end.

    Returns:
        The masks written.

    Raises:
        SkipSegError: If there is no model or no scan, or if some scans could not be segmented.
    """
    if settings.threads:
        torch.set_num_threads(settings.threads)
    predictor = Predictor.load(
        settings.model, overlap=settings.overlap, mirror=settings.mirror, device=resolve_device(settings.device)
    )
    found = _find(settings.input, settings.output)
    written: list[Path] = []
    failed: list[str] = []
    for name, paths in tqdm(found.items(), "predict", unit="scan", disable=None):
        try:
            scan = _read(paths, predictor, settings)
            target = settings.output / f"{name}{mask_ending(paths, settings.format)}"
            write_label_map(target, predictor(scan), scan, predictor.labels)
            written.append(target)
        except SkipSegError as error:
            failed.append(f"{name}: {error}")
    if failed:
        done = f"{len(written)} of {len(found)} scans were segmented; "
        raise SkipSegError(done + "not segmented: " + "; ".join(failed))
    return written


def predict_cases(
    predictor: Predictor, cases: Iterable[tuple[str, Sequence[Path]]], output: Path, ending: str = ".nii.gz"
) -> dict[str, Path]:
    """Segment named cases into ``output``, one mask ``NAME + ending`` each."""
    masks: dict[str, Path] = {}
    for name, paths in cases:
        scan = read_scan(paths, channels=len(predictor.channel_names))
        masks[name] = output / f"{name}{ending}"
        write_label_map(masks[name], predictor(scan), scan, predictor.labels)
    return masks


def mask_ending(paths: Sequence[Path], wanted: str) -> str:
    """File ending of the mask of a scan that lies in ``paths``.

    Examples:
        >>> [mask_ending([Path(name)], "same") for name in ("a.nii.gz", "photo.jpg", "b_0000.tiff")]
        ['.nii.gz', '.png', '.tif']
        >>> mask_ending([Path("a.nii.gz")], "nrrd")
        '.nrrd'
    """
    if wanted != "same":
        return f".{wanted}"
    name = paths[0].name.lower()
    if paths[0].is_dir() or name.endswith((".nii", ".nii.gz")):
        return ".nii.gz"
    if name.endswith(".nrrd"):
        return ".nrrd"
    return ".tif" if name.endswith((".tif", ".tiff")) else ".png"


def _find(source: Path, output: Path) -> dict[str, tuple[Path, ...]]:
    """Find the scan or scans at ``source``; masks never go among the scans, where they would replace them."""
    folder = source if source.is_dir() else source.parent
    if folder.resolve() == output.resolve():
        raise SkipSegError(f"{output} holds the scans themselves; choose another folder for the masks")
    if not source.is_file():
        return find_scans(source)
    # CASE_0000 is the first channel of CASE, also when it is the only file named.
    return {source.name.removesuffix(file_ending(source)).removesuffix("_0000"): (source,)}


def _read(paths: Sequence[Path], predictor: Predictor, settings: PredictSettings) -> Scan:
    """Read a scan for ``predictor``, a DICOM series with the user's choices."""
    if len(paths) == 1 and paths[0].is_dir():
        options: dict[str, Any] = {"series_uid": settings.series, "repair": settings.repair}
        return read_series(paths[0], **options)
    return read_scan(paths, channels=len(predictor.channel_names))
