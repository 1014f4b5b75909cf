"""What a worker makes of a scan: the mask of ``skipseg predict``, and files for the viewer in the same place."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from segmentation import SkipSegError
from segmentation.model.folder import read_description, write_description
from segmentation.scans import read_label_map, read_scan
from segmentation.scans.dicom_seg import read_dicom_seg
from segmentation.serve.records import RAW
from segmentation.serve.segment import segment
from tests.inference.test_predictor import ask, write_model
from tests.serve.test_intake import taken


def segmented(
    scan: Path, model: Path, folder: Path, *, uncertainty: bool = False
) -> tuple[dict[str, Any], Path, list[Any]]:
    """Take a scan in and segment it: the result, the folder of its files, and what was told meanwhile."""
    (folder / "upload").mkdir(parents=True)
    (folder / "out").mkdir()
    facts = taken(folder / "upload", scan)
    told: list[Any] = []
    task = {name: facts[name] for name in ("kind", "dims", "channels_in_file")} | {
        "scan": str(folder / "upload" / facts["name"]), "model": str(model), "out": str(folder / "out"),
        "uncertainty": uncertainty, "memory": "16GiB", "threads": 1, "backend": "torch", "device": "cpu",
    }  # fmt: skip
    return segment(task, lambda **said: told.append(said)), folder / "out", told


def same_place(one: Path, other: Path) -> bool:
    first, second = nib.nifti1.load(one), nib.nifti1.load(other)
    return first.shape == second.shape and np.allclose(first.affine, second.affine, atol=1e-5)


def test_the_mask_of_a_volume_is_that_of_predict(models: Path, scans: dict[str, Path], tmp_path: Path):
    result, out, told = segmented(scans["nifti"], models / "lung/volumes", tmp_path, uncertainty=True)
    (expected,) = ask(models / "lung/volumes", scans["nifti"], tmp_path / "predicted", uncertainty=True)
    assert (out / "mask.nii.gz").read_bytes() == expected.read_bytes()
    entropy = tmp_path / "predicted" / "volume_entropy.nii.gz"
    assert (out / "uncertainty.nii.gz").read_bytes() == entropy.read_bytes()
    assert sorted(file.name for file in out.iterdir()) == ["image.nii.gz", "mask.nii.gz", "uncertainty.nii.gz"]
    assert result["formats"] == {"nifti": "mask.nii.gz"}
    voxels = int(np.count_nonzero(read_label_map(expected).array))
    assert result["voxels"] == {"bright": voxels}
    volume = voxels * np.prod(read_scan(scans["nifti"]).spacing_mm) / 1000
    assert result["volumes_ml"]["bright"] == pytest.approx(volume, abs=1e-4)
    assert same_place(out / "image.nii.gz", out / "mask.nii.gz")
    np.testing.assert_array_equal(read_scan(out / "image.nii.gz").array, read_scan(scans["nifti"]).array)
    assert told[-1]["windows_done"] == told[-1]["windows"] > 1


def test_the_mask_of_a_picture_is_that_of_predict(models: Path, scans: dict[str, Path], tmp_path: Path):
    result, out, _ = segmented(scans["picture"], models / "pictures", tmp_path, uncertainty=True)
    (expected,) = ask(models / "pictures", scans["picture"], tmp_path / "predicted")
    assert (out / "mask.png").read_bytes() == expected.read_bytes()
    assert (result["formats"], result["volumes_ml"]) == ({"png": "mask.png"}, {"bright": None})
    mask = np.asarray(Image.open(expected))
    assert result["voxels"] == {"bright": int(np.count_nonzero(mask))}
    shown = nib.nifti1.load(out / "mask.nii.gz")
    np.testing.assert_array_equal(np.asarray(shown.dataobj)[..., 0].T, mask)
    assert nib.aff2axcodes(shown.affine) == ("L", "P", "S"), "shown with columns to the right, rows downwards"
    assert same_place(out / "image.nii.gz", out / "mask.nii.gz")
    assert same_place(out / "image.nii.gz", out / "uncertainty.nii.gz")


def test_the_result_says_what_was_done_to_the_mask(scans: dict[str, Path], tmp_path: Path):
    folder = write_model(tmp_path / "model", 2)
    result = segmented(scans["picture"], folder, tmp_path / "plain")[0]
    assert (result["steps"], result["labels"]) == ([], {"bright": 1})
    steps = [{"kind": "fill_holes", "label": 1}, {"kind": "remove_small", "label": 1, "minimum_mm3": 12.5}]
    told = {"keep_largest": True, "postprocess": {"steps": steps}}
    write_description(folder, dict(read_description(folder)) | told)
    assert segmented(scans["picture"], folder, tmp_path / "steps")[0]["steps"] == [
        "only the largest component of bright is kept",
        "holes in bright are filled",
        "components of bright below 12.5 mm3 are removed",
    ]


def test_a_colour_picture_is_shown_in_its_colours(scans: dict[str, Path], tmp_path: Path):
    model = write_model(tmp_path / "model", 2, channels=3)
    _, out, _ = segmented(scans["colour"], model, tmp_path)
    shown = nib.nifti1.load(out / "image.nii.gz")
    assert shown.header["datatype"] == 128, "RGB24"
    pixels = np.asarray(shown.dataobj)[..., 0].T
    picture = np.asarray(Image.open(scans["colour"]))
    for index, name in enumerate("RGB"):
        np.testing.assert_array_equal(pixels[name], picture[..., index])


def test_the_masks_of_a_series_are_those_of_predict(models: Path, scans: dict[str, Path], tmp_path: Path):
    result, out, _ = segmented(scans["dicom"], models / "lung/volumes", tmp_path)
    (expected,) = ask(models / "lung/volumes", scans["dicom"], tmp_path / "nifti")
    assert (out / "mask.nii.gz").read_bytes() == expected.read_bytes()
    (seg,) = ask(models / "lung/volumes", scans["dicom"], tmp_path / "seg", format="dcm")
    assert result["formats"] == {"nifti": "mask.nii.gz", "dicom-seg": "mask.dcm"}
    like = read_scan(tmp_path / "upload" / "series")
    (mine, my_names), (its, its_names) = (read_dicom_seg(path, like) for path in (out / "mask.dcm", seg))
    np.testing.assert_array_equal(mine.array, its.array)
    assert my_names == its_names
    np.testing.assert_array_equal(mine.array[0], read_label_map(expected).array[0])


def test_the_files_of_a_volume_repeat_no_free_text_of_the_scan(models: Path, tmp_path: Path):
    image = nib.Nifti1Image(np.random.default_rng(0).normal(size=(9, 9, 9)).astype(np.float32), np.eye(4))
    image.header["descrip"], image.header["db_name"] = b"<b>Doe^Jane</b>", b"Doe"
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"Doe^Jane"))
    image.to_filename(tmp_path / "scan.nii")
    _, out, _ = segmented(tmp_path / "scan.nii", models / "lung/volumes", tmp_path)
    for file in out.iterdir():
        written = nib.nifti1.load(file)
        assert b"Doe" not in written.header.binaryblock
        assert written.header.extensions == []


def test_a_scan_that_the_model_was_not_made_for_fails_in_words(models: Path, scans: dict[str, Path], tmp_path: Path):
    with pytest.raises(SkipSegError, match="is a picture, but this model segments a volume"):
        segmented(scans["picture"], models / "lung/volumes", tmp_path)
    assert not (tmp_path / "upload" / RAW).exists()
