import os
from pathlib import Path

import pytest

from segmentation import SkipSegError
from segmentation.inference.manifest import Manifest, source_signature
from segmentation.runs import file_hash, read_json, write_json

MODELS = [{"name": "run", "weights_sha256": "0" * 64}]


def written(folder: Path, **settings) -> Manifest:
    """A manifest of one case that is done."""
    manifest = Manifest(folder / "manifest.json", MODELS, settings)
    (folder / "a.nii.gz").write_bytes(b"mask")
    manifest.record("a", "source", "done", files={"a.nii.gz": file_hash(folder / "a.nii.gz")}, seconds={"read": 0.1})
    return manifest


def test_a_case_is_done_once(tmp_path: Path):
    written(tmp_path, overlap=0.5)
    again = Manifest(tmp_path / "manifest.json", MODELS, {"overlap": 0.5})
    assert again.is_done("a", "source")
    assert not again.is_done("b", "source")


def test_a_changed_scan_model_or_setting_or_a_lost_mask_is_segmented_anew(tmp_path: Path):
    written(tmp_path, overlap=0.5)
    path = tmp_path / "manifest.json"
    assert not Manifest(path, MODELS, {"overlap": 0.5}).is_done("a", "other source")
    assert not Manifest(path, MODELS, {"overlap": 0.25}).is_done("a", "source")
    assert not Manifest(path, [MODELS[0] | {"weights_sha256": "1" * 64}], {"overlap": 0.5}).is_done("a", "source")
    (tmp_path / "a.nii.gz").unlink()
    assert not Manifest(path, MODELS, {"overlap": 0.5}).is_done("a", "source")


def test_a_mask_that_was_corrected_by_hand_is_done_and_known_as_changed(tmp_path: Path):
    assert not written(tmp_path).changed("a")
    (tmp_path / "a.nii.gz").write_bytes(b"Mask")  # as many bytes
    manifest = Manifest(tmp_path / "manifest.json", MODELS, {})
    assert manifest.is_done("a", "source")
    assert manifest.changed("a") == ["a.nii.gz"]
    assert not manifest.changed("b")
    manifest.content["cases"]["a"]["files"]["a.nii.gz"] = 4  # its size, as earlier versions kept it
    assert not manifest.changed("a")
    assert manifest.holds("a", tmp_path / "a.nii.gz")
    assert not manifest.holds("a", tmp_path / "a.nrrd")
    (tmp_path / "a.nii.gz").unlink()
    assert not manifest.changed("a")


def test_a_failed_case_is_tried_again_and_says_why(tmp_path: Path):
    manifest = Manifest(tmp_path / "manifest.json", MODELS, {})
    manifest.record("a", "source", "failed", files={}, error="torn in two")
    assert not Manifest(tmp_path / "manifest.json", MODELS, {}).is_done("a", "source")
    assert read_json(tmp_path / "manifest.json")["cases"]["a"]["error"] == "torn in two"


def test_it_names_versions_and_models(tmp_path: Path):
    content = written(tmp_path).content
    assert content["models"] == MODELS
    assert {"python", "numpy"} <= set(content["versions"])


@pytest.mark.parametrize("content", [[], {"format": 99, "cases": {}}, {"format": 1}])
def test_something_else_is_never_replaced(tmp_path: Path, content):
    write_json(tmp_path / "manifest.json", content)
    with pytest.raises(SkipSegError, match="is not a manifest"):
        Manifest(tmp_path / "manifest.json", MODELS, {})
    assert read_json(tmp_path / "manifest.json") == content


def test_a_signature_follows_names_sizes_and_times(tmp_path: Path):
    (tmp_path / "series").mkdir()
    file = tmp_path / "series" / "1.dcm"
    file.write_bytes(b"1234")
    first = source_signature([tmp_path / "series"])
    assert source_signature([tmp_path / "series"]) == first
    os.utime(file, (1, 1))
    second = source_signature([tmp_path / "series"])
    file.rename(file.with_name("2.dcm"))
    assert len({first, second, source_signature([tmp_path / "series"])}) == 3


def test_no_file_outside_the_folder_is_ever_removed(tmp_path: Path):
    (tmp_path / "out").mkdir()
    manifest = written(tmp_path / "out")
    (tmp_path / "else.nii.gz").write_bytes(b"not ours")
    manifest.content["cases"]["a"]["files"]["../else.nii.gz"] = "0" * 64
    manifest.record("a", "source", "done", files={})
    assert (tmp_path / "else.nii.gz").exists()
    assert not (tmp_path / "out" / "a.nii.gz").exists()
