"""Segment an upload, in a worker process, by the code of ``skipseg predict``, and lay the results out for the page."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from segmentation import SkipSegError
from segmentation.config import PredictSettings
from segmentation.inference.postprocess import common_steps
from segmentation.inference.predict import predict
from segmentation.model.folder import read_description
from segmentation.runs import atomic_path, read_json
from segmentation.scans import Scan, read_label_map, read_scan
from segmentation.scans.dicom_seg import write_dicom_seg
from segmentation.scans.nifti import write_nifti
from segmentation.scans.series import SourceSlices
from segmentation.scans.workspace import Workspace
from segmentation.serve.records import IMAGE, MASK, PICTURE_MASK, SEGMENTATION, UNCERTAINTY
from segmentation.serve.words import cleaned

_UPRIGHT = np.diag([-1.0, -1.0, 1.0, 1.0])
"""Affine of a picture as a volume: in the viewer's radiological view columns go to the right and rows downwards."""

_ROOM_BYTES = 64 << 20
"""Of arrays in memory once the mask is there: prediction may have taken nearly all that is allowed."""

_KEPT = ("u1", "u2", "i2", "i4", "f4")
"""Types that every viewer reads."""

_RGB = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])


def segment(task: Mapping[str, Any], tell: Callable[..., None]) -> dict[str, Any]:
    """Segment a scan.

    Args:
        task: ``scan`` with its ``kind``, ``dims`` and ``channels_in_file``, ``model`` and ``out`` folders,
            ``uncertainty``, ``memory``, ``threads``, ``backend``, ``device``.
        tell: Told ``windows_done`` and ``windows``.

    Returns:
        ``formats`` that can be downloaded, with the file of each; ``voxels`` and ``volumes_ml`` of each class (None
        for a picture), ``labels``, ``warnings``, ``steps`` of post-processing in words, ``kind``, and
        ``has_uncertainty``.

    Raises:
        SkipSegError: If the scan cannot be segmented by this model.
    """
    out, flat = Path(task["out"]), task["dims"] == 2
    settings = PredictSettings(
        model=Path(task["model"]), input=Path(task["scan"]), output=out / "predicted",
        format="png" if flat else "nii.gz", uncertainty=task["uncertainty"], memory=task["memory"],
        threads=task["threads"], backend=task["backend"], device=task["device"],
    )  # fmt: skip
    (predicted,) = predict(settings, lambda done, total: tell(windows_done=done, windows=total))
    manifest = read_json(out / "predicted" / "manifest.json")
    about = next(iter(manifest["cases"].values()))
    formats, warnings = _lay_out(task, predicted, out, manifest["models"][0])
    for file in (out / "predicted").iterdir():
        file.unlink()
    (out / "predicted").rmdir()
    volumes = about.get("volume_ml") or dict.fromkeys(about["voxels"])
    model = read_description(Path(task["model"]))
    return {
        "formats": formats,
        "voxels": about["voxels"],
        "volumes_ml": volumes,
        "warnings": [cleaned(text) for text in (*about["warnings"], *warnings)],
        "labels": {name: value for name, value in model["labels"].items() if value},
        "steps": _steps_in_words(model),
        "kind": task["kind"],
        "has_uncertainty": (out / UNCERTAINTY).exists(),
    }


def _steps_in_words(about: Mapping[str, Any]) -> list[str]:
    """What a model's post-processing does to every mask."""
    names = {value: name for name, value in about["labels"].items()}
    words = {
        "keep_largest": "only the largest component of {} is kept",
        "remove_small": "components of {} below {:.3g} mm3 are removed",
        "fill_holes": "holes in {} are filled",
    }
    return [words[step.kind].format(names[step.label], step.minimum_mm3) for step in common_steps([about])]


def _lay_out(
    task: Mapping[str, Any], predicted: Path, out: Path, model: Mapping[str, Any]
) -> tuple[dict[str, str], list[str]]:
    """Put the mask where it is looked for, and write what the page shows; formats with their files, and warnings."""
    space = Workspace(_ROOM_BYTES, out)
    scan = read_scan(Path(task["scan"]), task["channels_in_file"], workspace=space)
    entropy = next(predicted.parent.glob("*_entropy.*"), None)
    if scan.spatial_dims == 2:
        label_map = read_label_map(predicted).array[0]
        predicted.rename(out / PICTURE_MASK)
        _write_flat(out / IMAGE, _colours(scan.array))
        _write_flat(out / MASK, label_map)
        if entropy:
            _write_flat(out / UNCERTAINTY, read_scan(entropy).array[0])
        return {"png": PICTURE_MASK}, []
    predicted.rename(out / MASK)
    if entropy:
        entropy.rename(out / UNCERTAINTY)
    write_nifti(out / IMAGE, scan.array[0], scan, _nifti_dtype(scan.array.dtype), workspace=space)
    return _with_dicom_seg(scan, out, Path(task["model"]), model)


def _with_dicom_seg(scan: Scan, out: Path, folder: Path, model: Mapping[str, Any]) -> tuple[dict[str, str], list[str]]:
    """Formats of the mask of a volume; of a DICOM series also a DICOM segmentation, as far as one can be written."""
    if not isinstance(scan.header, SourceSlices):
        return {"nifti": MASK}, []
    about = read_description(folder)
    try:
        write_dicom_seg(
            out / SEGMENTATION, read_label_map(out / MASK).array[0], scan.header.files, about["labels"],
            model_name=model["name"], model_version=model["weights_sha256"][:16], codes=about.get("codes", {}),
        )  # fmt: skip
    except SkipSegError as error:
        return {"nifti": MASK}, [f"no DICOM SEG: {error}"]
    return {"nifti": MASK, "dicom-seg": SEGMENTATION}, []


def _colours(array: NDArray[Any]) -> NDArray[Any]:
    """A picture of shape ``(C, rows, columns)`` as one array of gray or coloured pixels, ``(rows, columns)``."""
    if len(array) != 3:
        return array[0]
    return np.ascontiguousarray(np.moveaxis(array.astype(np.uint8), 0, -1)).view(_RGB)[..., 0]


def _write_flat(path: Path, values: NDArray[Any]) -> None:
    """Write values of shape ``(rows, columns)`` as a volume of one slice, which a viewer shows upright."""
    volume = np.ascontiguousarray(values.T[..., None])
    image = nib.Nifti1Image(volume.astype(_nifti_dtype(volume.dtype), copy=False), _UPRIGHT)
    image.header.set_xyzt_units("mm")
    with atomic_path(path) as draft:
        nib.save(image, draft)


def _nifti_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Type in which a file for a viewer keeps values of a type."""
    return dtype if dtype == _RGB or dtype.str[1:] in _KEPT else np.dtype(np.float32)
