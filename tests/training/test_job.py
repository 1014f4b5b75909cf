"""What is decided before a training starts, and what makes two trainings the same."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from segmentation import SkipSegError
from segmentation.config import PlanSettings
from segmentation.data.plan import plan_dataset
from segmentation.plain import flatten, to_plain
from segmentation.runs import read_json, write_json
from segmentation.training.job import OPTIONAL, VOLATILE, make_job, open_source
from segmentation.training.record import open_run, read_config
from segmentation.training.train import train


@pytest.fixture
def own_pictures(tmp_path, make_dataset):
    """A dataset that a test may change."""
    return make_dataset(tmp_path / "own", dims=2)


def test_nothing_is_left_open(pictures, volumes, tmp_path, tiny):
    for dataset in (pictures, volumes):
        job = make_job(tiny(dataset, tmp_path / "run"))
        open_settings = [name for name, value in flatten(to_plain(job.settings)) if value is None]
        assert set(open_settings) == set(OPTIONAL)


def test_frozen_settings_lead_to_the_same_job(volumes, tmp_path, tiny):
    # Values that YAML could bend: tiny floats, levels as keys, empty lists.
    changes = {
        "network.long_skip_levels": {0: "none"},
        "optim.weight_decay": 1e-5,
        "augment.flip_axes": [],
        "data.dims": 2,
    }
    job = make_job(tiny(volumes, tmp_path / "run", changes))
    (tmp_path / "run").mkdir()
    assert open_run(tmp_path / "run", job) == "waiting"
    again = make_job(read_config(tmp_path / "run" / "config.yaml"))
    assert again.settings == job.settings
    assert again.identity == job.identity


def test_place_and_speed_are_no_part_of_identity(pictures, tmp_path, tiny):
    settings = tiny(pictures, tmp_path / "run")
    elsewhere = replace(settings, out=tmp_path / "b", cache=tmp_path / "cache", threads=2)
    assert set(VOLATILE) == {"out", "cache", "plan", "threads", "track"}
    assert make_job(elsewhere).identity == make_job(settings).identity


@pytest.mark.parametrize("change", [{"seed": 1}, {"fold": 1}, {"network.long_skip": "none"}, {"optim.ema_decay": 0.0}])
def test_everything_else_is(pictures, tmp_path, tiny, change):
    settings = tiny(pictures, tmp_path / "run")
    assert make_job(tiny(pictures, tmp_path / "run", change)).identity != make_job(settings).identity


@pytest.mark.parametrize("change", [np.diag([-1.0, 1, 1, 1]), np.diag([1.0, 1, 3, 1])], ids=["mirrored", "spacing"])
def test_a_mended_header_changes_identity(make_dataset, tmp_path, tiny, change):
    dataset = make_dataset(tmp_path / "data", dims=3, patients=3)
    before = make_job(tiny(dataset, tmp_path / "run")).identity
    for file in (*dataset.cases[0].images, dataset.cases[0].label):
        image = nib.nifti1.load(file)
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj), image.affine @ change), file)
    assert make_job(tiny(dataset, tmp_path / "run")).identity != before


def test_more_labels_than_a_byte_tells_apart_are_refused(own_pictures, monkeypatch):
    monkeypatch.setattr("segmentation.training.job.MOST_LABELS", 2)
    with pytest.raises(SkipSegError, match="has 3 labels, 2 can be learnt at most"):
        open_source(own_pictures.root, None)


def test_a_changed_label_changes_identity(own_pictures, tmp_path, tiny):
    settings = tiny(own_pictures, tmp_path / "run")
    before = make_job(settings).identity
    path = own_pictures.cases[0].label
    label = np.array(Image.open(path))
    label[0, 0] = 1
    Image.fromarray(label).save(path)
    assert make_job(settings).identity != before


def test_plan_of_the_dataset_is_followed(own_pictures, tmp_path, tiny):
    path, _ = plan_dataset(PlanSettings(own_pictures.root))
    content = read_json(path)
    content["settings"]["tolerance_mm"]["value"] = 7.5
    content["settings"]["network.width"]["value"] = 24
    write_json(path, content)
    settings = make_job(tiny(own_pictures, tmp_path / "run")).settings
    assert settings.tolerance_mm == 7.5
    assert settings.network.width == 4, "what is asked for wins over the plan"


def test_incomplete_plan_is_refused(own_pictures, tmp_path, tiny):
    path, _ = plan_dataset(PlanSettings(own_pictures.root))
    content = read_json(path)
    del content["settings"]["tolerance_mm"], content["settings"]["augment.flip_axes"]
    write_json(path, content)
    with pytest.raises(SkipSegError, match=r"lacks augment.flip_axes, tolerance_mm; run `skipseg plan` again"):
        make_job(tiny(own_pictures, tmp_path / "run"))


@pytest.mark.parametrize(
    ("name", "value"), [("tolerance_mm", "2,5"), ("tolerance_mm", 0), ("augment.flip_axes", ["x"]), ("data.dims", 4)]
)
def test_plan_that_was_edited_wrongly_is_refused(own_pictures, tmp_path, tiny, name, value):
    path, _ = plan_dataset(PlanSettings(own_pictures.root))
    content = read_json(path)
    content["settings"][name]["value"] = value
    write_json(path, content)
    with pytest.raises(SkipSegError, match=rf"plan\.json: .*{name.rpartition('.')[2]}"):
        make_job(tiny(own_pictures, tmp_path / "run"))


def test_depth_follows_a_patch_that_is_given(pictures, tmp_path, tiny):
    settings = replace(tiny(pictures, tmp_path / "run"))
    shallow = replace(settings.network, depth=None)
    job = make_job(replace(settings, network=shallow))
    assert job.settings.network.depth == len(job.architecture.strides) == 2  # 16, 8, 4 voxels


def test_deeper_than_the_patch_suggests(pictures, tmp_path, tiny):
    job = make_job(tiny(pictures, tmp_path / "run", {"network.depth": 3}))
    assert [list(step) for step in job.architecture.strides] == [[2, 2]] * 3
    assert len(job.architecture.kernels) == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data.patch_size": [16, 16, 16]}, "data.patch_size needs 2 values"),
        ({"data.spacing_mm": [1.0]}, "data.spacing_mm needs 2 values"),
        ({"augment.flip_axes": [0, 2]}, r"flip_axes must be below 2 for this dataset, got \[2\]"),
        ({"data.dims": 3, "data.patch_size": [16, 16, 16]}, "holds pictures"),
        ({"fold": 3}, "fold 3 does not exist"),
        ({"folds": 4}, "cannot fill 4 folds"),
        ({"network.long_skip_levels": {1: "none"}}, "levels 0 to 0"),
        ({"plan": "nowhere.json"}, "nowhere.json does not exist"),
    ],
)
def test_what_does_not_fit_is_refused(pictures, tmp_path, tiny, change, message):
    with pytest.raises(SkipSegError, match=message):
        make_job(tiny(pictures, tmp_path / "run", change))


def test_missing_gpu_is_said_before_anything_is_written(pictures, tmp_path, tiny, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    settings = tiny(pictures, tmp_path / "run", {"device": "cuda"})
    assert make_job(settings).settings.device == "cuda", "a study may be frozen where no GPU is"
    with pytest.raises(SkipSegError, match="finds no CUDA device"):
        train(settings)
    assert not settings.out.exists()


def test_check_comes_before_training(own_pictures, tmp_path, tiny):
    label = np.array(Image.open(own_pictures.cases[0].label))
    Image.fromarray(label * 100).save(own_pictures.cases[0].label)
    with pytest.raises(SkipSegError, match=r"cannot be trained on: 'case_00': label values 100, 200 are none of"):
        make_job(tiny(own_pictures, tmp_path / "run"))
