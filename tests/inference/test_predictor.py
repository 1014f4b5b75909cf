import itertools
import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from scipy import ndimage
from torch import nn

from segmentation import SkipSegError
from segmentation.config import NetworkSettings, PredictSettings
from segmentation.data.preprocessing import Normalisation, Preprocessing
from segmentation.inference.backend_torch import Classifier, TorchBackend, resolve_device
from segmentation.inference.postprocess import Step
from segmentation.inference.predict import predict, predict_cases
from segmentation.inference.predictor import Predictor
from segmentation.inference.uncertainty import entropy, variance
from segmentation.model.folder import write_description
from segmentation.model.storage import Architecture, save_model
from segmentation.scans import Scan, grid_difference, read_label_map, read_scan
from segmentation.scans.workspace import Workspace

UNIT = Normalisation("range", 0, 1, 0.25, 0.5)
LABELS = {"background": 0, "bright": 1}
ARCHITECTURE = Architecture(NetworkSettings(depth=1, width=4), 3, 1, 2, [[2, 2, 2]], [[3, 3, 3]] * 2)  # names a cost
ORIENTATIONS = list(itertools.product(itertools.permutations(range(3)), itertools.product((-1, 1), repeat=3)))


class Threshold(nn.Module):
    """Class 1 where the middle channel, before it was standardised, exceeds one half."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        middle = x[:, x.shape[1] // 2] * UNIT.std + UNIT.mean
        return torch.stack((torch.zeros_like(middle), 4 * (middle - 0.5)), dim=1)


def predictor(spacing_mm, slice_axis=None, context: int = 0, network: nn.Module | None = None, **changes) -> Predictor:
    dims = 2 if slice_axis is not None else len(spacing_mm)
    preprocessing = Preprocessing(dims, tuple(spacing_mm), slice_axis, context, (UNIT,))
    networks = [network or Threshold()] if not isinstance(network, list) else network
    backends = [TorchBackend(Classifier(each, preprocessing), ARCHITECTURE) for each in networks]
    return replace(Predictor(backends, preprocessing, LABELS, ["gray"], [6] * dims, [0], False), **changes)


def turned(order, signs, spacing=(0.9, 1.3, 2.6)) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, (world, sign) in enumerate(zip(order, signs, strict=True)):
        affine[world, axis] = sign * spacing[world]
    affine[:3, :3] = np.array([[0.99, -0.1, 0.05], [0.1, 0.99, 0.02], [-0.05, -0.02, 0.99]]) @ affine[:3, :3]
    return affine


# From a scan to a label map


@pytest.mark.parametrize(("order", "signs"), ORIENTATIONS)
def test_a_network_that_thresholds_gives_the_thresholded_scan(order, signs):
    array = np.random.default_rng(0).random((1, 9, 7, 8))
    scan = Scan(array, turned(order, signs))
    canonical = tuple(np.linalg.norm(turned((0, 1, 2), (1, 1, 1))[:3, :3], axis=0))
    for slice_axis, context in ((None, 0), (order[0], 1), (order[2], 0)):
        label_map = predictor(canonical, slice_axis, context)(scan)
        assert label_map.dtype == np.uint8
        np.testing.assert_array_equal(label_map, array[0] > 0.5)


@settings(max_examples=12)
@given(st.sampled_from(ORIENTATIONS), st.tuples(*[st.floats(0.7, 2.0)] * 3), st.sampled_from((None, 0, 1, 2)))
def test_a_resampled_threshold_agrees_away_from_the_surface(orientation, spacing, slice_axis):
    smooth = ndimage.gaussian_filter(np.random.default_rng(0).random((18, 16, 14)), 3.5, mode="nearest")
    array = 0.5 + 0.4 * np.tanh((smooth - smooth.mean()) / smooth.std())
    patch_size = [10] * (3 if slice_axis is None else 2)
    label_map = predictor(spacing, slice_axis, patch_size=patch_size)(Scan(array[None], turned(*orientation)))
    certain = np.abs(array - 0.5) > 0.15
    assert certain.mean() > 0.5
    np.testing.assert_array_equal(label_map[certain], array[certain] > 0.5)


def test_pictures_keep_their_axes():
    array = np.random.default_rng(0).random((1, 13, 17))
    np.testing.assert_array_equal(predictor((1.0, 1.0))(Scan(array, np.eye(4))), array[0] > 0.5)


def test_slices_are_read_with_their_neighbours():
    class Above(nn.Module):
        """Class 1 where the next slice is bright."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.stack((torch.zeros_like(x[:, 2]), x[:, 2]), dim=1)

    array = np.zeros((1, 5, 6, 4))
    array[:, :, :, 2] = 1
    label_map = predictor((1.0, 1.0, 1.0), slice_axis=2, context=1, network=Above())(Scan(array, np.eye(4)))
    assert label_map.any(axis=(0, 1)).tolist() == [False, True, False, False]


class Uneven(nn.Module):
    """A fixed convolution that is not symmetric."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3, padding=1)
        with torch.no_grad():
            self.conv.weight.copy_(torch.linspace(-2, 3, 18).reshape(2, 1, 3, 3).sin() * 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x)


@pytest.mark.parametrize("flip_axes", [[0], [1], [0, 1]])
def test_mirrored_predictions_turn_with_the_image(flip_axes):
    image = np.random.default_rng(0).random((1, 6, 9), np.float32)
    options = {"network": Uneven(), "flip_axes": flip_axes, "patch_size": [6, 9]}

    def probabilities(image: np.ndarray, mirror: bool) -> np.ndarray:
        made = predictor((1.0, 1.0), mirror=mirror, **options)
        return made.segment(Scan(image, np.eye(4)), ["probabilities"]).extras["probabilities"]

    mirrored, plain = partial(probabilities, mirror=True), partial(probabilities, mirror=False)
    for axis in (0, 1):
        turned_back = np.flip(mirrored(np.flip(image, axis + 1).copy()), axis + 1)
        assert np.allclose(turned_back, mirrored(image), atol=1e-6) == (axis in flip_axes)
    assert not np.allclose(plain(image), mirrored(image), atol=1e-3)
    copies = [tuple(axes) for n in range(len(flip_axes) + 1) for axes in itertools.combinations(flip_axes, n)]
    mean = np.mean(
        [np.flip(plain(np.flip(image, [a + 1 for a in c]).copy()), [a + 1 for a in c]) for c in copies], axis=0
    )
    np.testing.assert_allclose(mirrored(image), mean, atol=1e-6)


def test_steps_act_on_the_restored_map():
    array = np.zeros((1, 12, 12))
    array[0, 1:5, 1:5] = array[0, 8:10, 8:10] = 1
    scan = Scan(array, np.eye(4))
    assert predictor((1.0, 1.0))(scan).sum() == 20
    assert predictor((1.0, 1.0), steps=[Step("keep_largest", 1)])(scan).sum() == 16


# Several networks, and what a prediction says besides


class Says(nn.Module):
    """One probability of class 1 everywhere."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.logit = float(np.log(probability / (1 - probability)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack((torch.zeros_like(x[:, 0]), torch.full_like(x[:, 0], self.logit)), dim=1)


@pytest.mark.parametrize("slice_axis", [None, 1])
def test_probabilities_of_several_networks_are_averaged(slice_axis):
    scan = Scan(np.random.default_rng(0).random((1, 7, 8, 9)), turned((2, 0, 1), (1, -1, 1)))
    members = [Says(0.9), Says(0.3), Says(0.45)]
    both = predictor((1.0, 1.0, 2.0), slice_axis, network=members)
    found = both.segment(scan, ["probabilities", "entropy", "variance"])
    mean = (0.9 + 0.3 + 0.45) / 3
    np.testing.assert_allclose(
        found.extras["probabilities"],
        np.stack(np.broadcast_arrays(1 - mean, np.full(scan.spatial_shape, mean))),
        atol=1e-5,
    )
    each = np.array([[1 - p, p] for p in (0.9, 0.3, 0.45)], np.float32)
    np.testing.assert_allclose(found.extras["entropy"], entropy(each.mean(axis=0)[:, None])[0], atol=1e-5)
    np.testing.assert_allclose(found.extras["variance"], variance(each[:, :, None])[0], atol=1e-5)
    assert found.label_map.all()
    alone = both.segment(scan)
    np.testing.assert_array_equal(alone.label_map, found.label_map)
    assert not alone.extras


@pytest.mark.parametrize(("order", "signs"), ORIENTATIONS[::7])
def test_probabilities_lie_where_the_scan_lies(order, signs):
    array = np.random.default_rng(0).random((1, 9, 7, 8)).astype(np.float32)
    scan = Scan(array, turned(order, signs))
    canonical = tuple(np.linalg.norm(turned((0, 1, 2), (1, 1, 1))[:3, :3], axis=0))
    found = predictor(canonical).segment(scan, ["probabilities"]).extras["probabilities"]
    np.testing.assert_allclose(found[1], 1 / (1 + np.exp(-4 * (array[0] - 0.5))), atol=1e-5)


@pytest.mark.parametrize("slice_axis", [None, 0, 2])
@pytest.mark.parametrize("batch_size", [1, 5])
def test_memory_in_files_and_batches_change_no_voxel(tmp_path: Path, slice_axis, batch_size):
    array = np.asarray(np.random.default_rng(0).random((1, 19, 17, 23)).astype(np.float32), order="F")
    scan = Scan(array, turned((2, 0, 1), (1, -1, 1)))
    made = predictor((1.1, 1.0, 2.0), slice_axis, mirror=True)
    free = made.segment(scan, ["probabilities", "entropy"])
    space = Workspace(limit=0, folder=tmp_path)
    tight = replace(made, batch_size=batch_size).segment(scan, ["probabilities", "entropy"], space)
    assert space.spilled > 3
    np.testing.assert_array_equal(tight.label_map, free.label_map)
    for name, values in free.extras.items():
        np.testing.assert_allclose(tight.extras[name], values, atol=1e-6)


def test_nan_of_a_network_never_passes_for_background():
    class Diverged(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.full((len(x), 2, *x.shape[2:]), torch.nan)

    with pytest.raises(SkipSegError, match="the network gives NaN"):
        predictor((1.0, 1.0, 1.0), network=Diverged())(Scan(np.random.default_rng(0).random((1, 9, 8, 7)), np.eye(4)))


def test_progress_ends_at_all_windows():
    seen = []
    scan = Scan(np.random.default_rng(0).random((1, 9, 13, 7)), np.eye(4))
    found = predictor((1.0, 1.0, 1.0)).segment(scan, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1] == found.windows.computed + found.windows.known > 1
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((1, 5, 5)), "is a picture, but this model segments a volume"),
        (np.zeros((2, 5, 5, 5)), "has 2 channels, but this model reads gray"),
        (np.full((1, 5, 5, 5), np.nan), "NaN or infinite"),
        (np.where(np.arange(125).reshape(1, 5, 5, 5) == 7, np.inf, 0), "NaN or infinite"),
    ],
)
def test_a_scan_that_the_model_was_not_made_for_is_refused(array, message):
    with pytest.raises(SkipSegError, match=f"odd.nii {message}|odd.nii holds {message}"):
        predictor((1.0, 1.0, 1.0))(Scan(array, np.eye(4), "odd.nii"))
    with pytest.raises(SkipSegError, match="is a volume, but this model segments a picture"):
        predictor((1.0, 1.0))(Scan(np.zeros((1, 5, 5, 5)), np.eye(4)))


# From files to files


def ask(model: Path, source: Path, masks: Path | None, **options) -> list[Path]:
    """Masks of ``skipseg predict`` with PyTorch."""
    return list(predict(PredictSettings(model, source, masks, **({"backend": "torch", "device": "cpu"} | options))))


def write_model(folder: Path, dims: int, channels: int = 1, slice_axis: int | None = None, seed: int = 3) -> Path:
    """A small network with random weights that segments about half of everything."""
    axes = 3 if slice_axis is not None else dims
    normalisation = (Normalisation("zscore"),) * channels
    preprocessing = Preprocessing(dims, (1.0,) * axes, slice_axis, 1 if slice_axis is not None else 0, normalisation)
    settings = NetworkSettings(depth=2, width=4)
    architecture = Architecture(settings, dims, preprocessing.network_channels, 2, [[2] * dims] * 2, [[3] * dims] * 3)
    description = {
        "preprocessing": preprocessing.to_plain(),
        "channel_names": ["red", "green", "blue"][:channels],
        "labels": LABELS,
        "patch_size": [16] * dims,
        "flip_axes": [0],
        "mirror": False,
        "keep_largest": False,
    }
    save_model(folder, architecture, architecture.build(seed=seed).state_dict(), description)
    return folder


def write_volume(path: Path, seed: int = 0, shape=(19, 15, 9), value: float | None = None) -> Path:
    array = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    if value is not None:
        array[3, 3, 3] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.Nifti1Image(array, turned((1, 0, 2), (1, -1, 1))).to_filename(path)
    return path


def write_series(folder: Path, slices: int = 5) -> Path:
    folder.mkdir(parents=True)
    series, study, frame = (generate_uid(entropy_srcs=[folder.name, what]) for what in ("series", "study", "frame"))
    for number in range(slices):
        image = Dataset()
        image.file_meta = FileMetaDataset()
        image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID = CTImageStorage
        image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID = generate_uid(
            entropy_srcs=[series, str(number)]
        )
        image.SeriesInstanceUID, image.Modality, image.PatientName = series, "CT", "Nobody"
        image.StudyInstanceUID, image.FrameOfReferenceUID = study, frame
        image.ImagePositionPatient, image.ImageOrientationPatient = [0, 0, 2 * number], [1, 0, 0, 0, 1, 0]
        image.PixelSpacing, image.SliceThickness = [1, 1], 2
        image.Rows, image.Columns, image.BitsAllocated, image.BitsStored, image.HighBit = 17, 13, 16, 16, 15
        image.PixelRepresentation, image.SamplesPerPixel, image.PhotometricInterpretation = 1, 1, "MONOCHROME2"
        image.RescaleSlope, image.RescaleIntercept = 1, -1024
        pixels = np.random.default_rng(number).integers(0, 2000, (17, 13)).astype(np.int16)
        image.PixelData = pixels.tobytes()
        pydicom.dcmwrite(folder / f"{number}.dcm", image, enforce_file_format=True)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"), 3)


@pytest.fixture(scope="module")
def slice_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("slices"), 2, slice_axis=2)


@pytest.fixture(scope="module")
def colour_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("colours"), 2, channels=3)


@pytest.mark.parametrize("kind", ["model", "slice_model"])
def test_volumes_of_every_format_come_back_in_their_own_frame(request, kind, tmp_path: Path):
    model, scans = request.getfixturevalue(kind), tmp_path / "scans"
    write_volume(scans / "a_0000.nii.gz")
    write_volume(scans / "b.nii", seed=1, shape=(3, 2, 1))
    write_series(scans / "series")
    written = ask(model, scans, tmp_path / "masks")
    assert [path.name for path in written] == ["a.nii.gz", "b.nii.gz", "series.nii.gz"]
    for source, mask in zip(("a_0000.nii.gz", "b.nii", "series"), written, strict=True):
        scan = read_scan(scans / source)
        label_map = read_label_map(mask, like=scan)
        assert grid_difference(scan, label_map) is None
        np.testing.assert_array_equal(label_map.array[0], Predictor.load(model)(scan))
        assert set(np.unique(label_map.array)) <= {0, 1}
    assert 0.05 < read_label_map(written[0]).array.mean() < 0.95
    assert sorted(path.name for path in (tmp_path / "masks").iterdir()) == [
        *(path.name for path in written[:2]),
        "manifest.json",
        written[2].name,
    ]


def test_pictures_come_back_as_pictures(colour_model: Path, tmp_path: Path):
    (tmp_path / "in").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (31, 23, 3)).astype(np.uint8)
    for name in ("a.png", "b.tif", "c.bmp"):
        Image.fromarray(pixels).save(tmp_path / "in" / name)
    written = ask(colour_model, tmp_path / "in", tmp_path / "out")
    assert [path.name for path in written] == ["a.png", "b.tif", "c.png"]
    maps = [np.asarray(Image.open(path)) for path in written]
    assert maps[0].shape == (31, 23)
    assert 0 < maps[0].mean() < 1
    np.testing.assert_array_equal(maps[0], maps[1])


def test_one_file_and_one_series_can_be_given(model: Path, tmp_path: Path):
    scan, series = write_volume(tmp_path / "scans" / "a.nii.gz"), write_series(tmp_path / "ct")
    assert [path.name for path in ask(model, scan, tmp_path / "out")] == ["a.nii.gz"]
    assert [path.name for path in ask(model, series, tmp_path / "out")] == ["ct.nii.gz"]
    channel = scan.rename(scan.with_name("b_0000.nii.gz"))
    assert [path.name for path in ask(model, channel, tmp_path / "out")] == ["b.nii.gz"]
    scan = channel.rename(scan)
    assert [path.name for path in ask(model, scan, tmp_path / "out", format="nrrd")] == ["a.nrrd"]


def test_one_bad_scan_never_stops_the_others(model: Path, tmp_path: Path):
    scans = tmp_path / "scans"
    write_volume(scans / "a.nii.gz", value=np.nan)
    (scans / "b.nii.gz").write_bytes(b"not a scan")
    good = write_volume(scans / "c.nii.gz")
    (scans / "d.nii.gz").write_bytes(good.read_bytes()[:700])
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(scans / "e.png")
    (write_series(scans / "f") / "2.dcm").unlink()
    write_volume(scans / "g.nii.gz", seed=2)
    with pytest.raises(SkipSegError, match=r"2 of 7 scans are segmented; not segmented: a: .*; b: .*; f: ") as refused:
        ask(model, scans, tmp_path / "masks")
    assert "\n" not in str(refused.value)
    assert sorted(path.name for path in (tmp_path / "masks").iterdir()) == ["c.nii.gz", "g.nii.gz", "manifest.json"]


@pytest.mark.parametrize("one_file", [True, False])
def test_masks_never_replace_scans(model: Path, tmp_path: Path, one_file):
    scan = write_volume(tmp_path / "scans" / "a.nii.gz")
    before = scan.read_bytes()
    with pytest.raises(SkipSegError, match="another folder for the mask"):
        ask(model, scan if one_file else scan.parent, tmp_path / "masks" / ".." / "scans")
    assert scan.read_bytes() == before


def test_a_missing_input_and_a_missing_model_are_refused(model: Path, tmp_path: Path):
    with pytest.raises(SkipSegError, match=r"nowhere.nii.gz"):
        ask(model, tmp_path / "nowhere.nii.gz", tmp_path / "masks")
    with pytest.raises(SkipSegError, match=r"holds no model.json"):
        ask(tmp_path, tmp_path, tmp_path / "masks")
    assert not (tmp_path / "masks").exists()


@pytest.mark.parametrize("missing", ["preprocessing", "channel_names", "patch_size", "mirror"])
def test_a_model_that_does_not_say_how_to_predict_is_refused(tmp_path: Path, missing):
    description = write_model(tmp_path, 2) / "model.json"
    content = json.loads(description.read_text())
    del content[missing]
    write_description(tmp_path, content)
    with pytest.raises(SkipSegError, match=f"does not say how to predict .*{missing}"):
        Predictor.load(tmp_path)


def test_mirroring_follows_the_model_unless_told_otherwise(model: Path):
    assert [Predictor.load(model, mirror=mirror).mirror for mirror in (None, True, False)] == [False, True, False]


def test_named_cases_are_written_under_their_names(model: Path, tmp_path: Path):
    cases = [("one", [write_volume(tmp_path / "x.nii.gz")]), ("two", [write_volume(tmp_path / "y.nii.gz", seed=1)])]
    masks = predict_cases(Predictor.load(model), cases, tmp_path / "masks")
    assert {name: path.name for name, path in masks.items()} == {"one": "one.nii.gz", "two": "two.nii.gz"}
    assert (read_label_map(masks["one"]).array != read_label_map(masks["two"]).array).any()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_refused():
    assert [resolve_device(device) for device in ("auto", "cpu")] == ["cpu", "cpu"]
    with pytest.raises(SkipSegError, match="no CUDA device"):
        resolve_device("cuda")
