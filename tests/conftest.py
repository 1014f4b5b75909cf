"""What all tests share: one thread, a cache folder of their own, and a dataset made on the spot."""

import os
import re
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before numpy and torch load; commands that tests start inherit it

import nibabel as nib
import numpy as np
import pytest
from hypothesis import settings
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from segmentation.config import TrainSettings
from segmentation.data.manifest import Case, Dataset, write_dataset
from segmentation.plain import from_plain

# The same examples in every run, and no verdict on how busy the machine is.
settings.register_profile("skipseg", derandomize=True, deadline=None)
settings.load_profile("skipseg")

collect_ignore = [f"benchmarks/nnunet_{name}.py" for name in ("accuracy", "loader", "step")]
"""Scripts that run in nnU-Net's own environment."""

ROOT = Path(__file__).parents[1]
AFFINE = np.array([[-0.9, 0.1, 0, 40], [0.1, 0.9, 0, -30], [0, 0, 2.5, 7], [0, 0, 0, 1]])
"""Voxel to world of the volumes: oblique, anisotropic, first axis towards the left."""
TINY = {"epochs": 2, "steps_per_epoch": 2, "threads": 1, "device": "cpu", "network": {"depth": 1, "width": 4}}
"""Settings of a training that takes a second."""


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cache folder of this session: tests neither read nor fill the user's."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["XDG_CACHE_HOME"] = str(folder)
    return folder


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """Ctrl-C arrives here and in commands that tests start, also when a shell runs pytest in the background."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """Make standard output and error a terminal of 80 columns; function that gives what was written, as a log."""
    monkeypatch.setattr("_pytest.capture.CaptureIO.isatty", lambda stream: True)
    for name, value in {"TERM": "xterm", "COLUMNS": "80", "LINES": "40"}.items():
        monkeypatch.setenv(name, value)
    written: list[str] = []

    def read() -> str:
        written.extend(capsys.readouterr())
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", "".join(written)).replace("\r", "\n").rstrip()

    return read


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of public datasets beside the repository, for slow tests on real scans."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no folder of public datasets beside the repository")
    return folder


@pytest.fixture(scope="session")
def make_dataset() -> Callable[..., Dataset]:
    """Function that writes a dataset in our layout: :func:`_write_dataset`."""
    return _write_dataset


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Six PNG pictures of three patients; read only, make your own with ``make_dataset`` to change it."""
    return _write_dataset(tmp_path_factory.mktemp("pictures"), dims=2)


@pytest.fixture(scope="session")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Six NIfTI volumes of three patients; read only, make your own with ``make_dataset`` to change it."""
    return _write_dataset(tmp_path_factory.mktemp("volumes"), dims=3)


@pytest.fixture(scope="session")
def volume_model(volumes: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run folder of a 3-D network that was trained on ``volumes`` for a moment; read only."""
    from segmentation.training.train import train  # seconds, which most test rooms need not spend

    plain = {"dataset": str(volumes.root), "out": str(tmp_path_factory.mktemp("model") / "run"), "folds": 0, **TINY}
    return train(from_plain(TrainSettings, plain | {"data": {"patch_size": [16, 16, 16], "batch_size": 2}}))


@pytest.fixture(scope="session")
def write_series() -> Callable[..., Path]:
    """Function that writes a DICOM series: :func:`_write_series`."""
    return _write_series


def _write_series(folder: Path, volume: NDArray[Any], heights_mm: Sequence[float], series: str = "1.2.3") -> Path:
    """Write ``volume``, shape ``(I, J, K)``, as one axial CT slice for each of K heights; voxels are 0.9 mm wide."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, height in enumerate(heights_mm):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = CTImageStorage, ExplicitVRLittleEndian
        meta.MediaStorageSOPInstanceUID = f"{series}.{index + 1}"
        file = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
        file.SOPClassUID, file.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        file.Modality, file.SeriesInstanceUID, file.PatientName = "CT", series, "Doe^Jane"
        file.ImagePositionPatient, file.ImageOrientationPatient = [-12.0, 30.5, height], [1, 0, 0, 0, 1, 0]
        file.PixelSpacing, file.SliceThickness = [0.9, 0.9], 2.5
        file.Columns, file.Rows = volume.shape[:2]
        file.SamplesPerPixel, file.PhotometricInterpretation, file.PixelRepresentation = 1, "MONOCHROME2", 0
        file.BitsAllocated, file.BitsStored, file.HighBit = 16, 16, 15
        file.RescaleSlope, file.RescaleIntercept = 1, 0
        file.PixelData = volume[:, :, index].T.astype("<u2").tobytes()
        file.save_as(folder / f"{series}-{index:03}.dcm", enforce_file_format=True)
    return folder


def _write_dataset(folder: Path, dims: int, patients: int = 3, cases_each: int = 2, seed: int = 0) -> Dataset:
    """Write cases of odd and differing sizes with two nested structures: an organ, and a lesion inside it."""
    rng = np.random.default_rng(seed)
    ending = ".png" if dims == 2 else ".nii.gz"
    cases: list[Case] = []
    for number in range(patients * cases_each):
        name, patient = f"case_{number:02}", f"patient_{number // cases_each}"
        size = (49 + 2 * number, 67) if dims == 2 else (25 + 2 * number, 29, 13)
        image, label = _organ_with_lesion(size, rng)
        image_path = folder / "imagesTr" / f"{name}_0000{ending}"
        label_path = folder / "labelsTr" / f"{name}{ending}"
        _write(image_path, image)
        _write(label_path, label)
        cases.append(Case(name, (image_path,), label_path, patient, stratum=("a", "b")[number // cases_each % 2]))
    dataset = Dataset(
        name="tiny",
        root=folder,
        spatial_dims=dims,
        channel_names=("gray",) if dims == 2 else ("CT",),
        labels={"background": 0, "organ": 1, "lesion": 2},
        cases=tuple(cases),
        licence="CC0-1.0",
        source="made by the tests",
    )
    write_dataset(dataset, ending)
    return dataset


def _organ_with_lesion(size: tuple[int, ...], rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Image and label map, both of shape ``size``: a bright ellipsoid, a brighter one inside it, and noise."""
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, voxels) for voxels in size), indexing="ij"))
    centre = rng.uniform(-0.2, 0.2, (len(size),) + (1,) * len(size))
    distance = np.linalg.norm(grid - centre, axis=0)
    label = (distance < 0.6).astype(np.uint8) + (distance < 0.3)
    return (60 + 70 * label + rng.normal(0, 8, size)).astype(np.uint8), label.astype(np.uint8)


def _write(path: Path, array: NDArray[np.uint8]) -> None:
    """Write ``array``, shape ``(*S)``, as PNG or NIfTI by the file's ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".png":
        Image.fromarray(array).save(path)
    else:
        nib.Nifti1Image(array.astype(np.int16), AFFINE).to_filename(path)
