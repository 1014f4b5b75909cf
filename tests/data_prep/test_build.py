import errno
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import data_prep
from data_prep import build as module
from data_prep.build import About, Record, build, encode_nifti, encode_png, hash_source
from data_prep.disk import alone
from segmentation import SkipSegError
from segmentation.scans import Scan, read_scan

ABOUT = About("toy", 2, ("gray",), {"background": 0, "thing": 1}, "CC0", citation="me", page="here", layout="things")


def record(name: str = "case_1", image_shape=(49, 67), label_shape=(49, 67), value: int = 1) -> Record:
    def load():
        return Scan(np.full((1, *image_shape), 7, np.uint8), np.eye(4)), np.full(label_shape, value)

    return Record(name, f"patient of {name}", load, stratum="a")


def test_writes_the_layout_and_reads_it_back(tmp_path):
    dataset = build(tmp_path / "out", ABOUT, [record("b"), record("a")], sha256="12", splits={"folds": []})
    assert [case.name for case in dataset.cases] == ["a", "b"]
    assert dataset.cases[0].patient == "patient of a"
    assert dataset.cases[0].stratum == "a"
    assert (dataset.licence, dataset.source, dataset.citation) == ("CC0", "here", "me")
    assert dataset.extra["sha256"] == "12"
    for case in dataset.cases:
        assert read_scan(case.images[0]).array.shape == (1, 49, 67)
        assert case.label is not None
        assert read_scan(case.label).array.max() == 1
    assert "CC0" in (tmp_path / "out" / "LICENSE.txt").read_text()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([], "holds no cases; expected things"),
        ([record("../up")], "not safe as a file name"),
        ([record("a"), record("a")], "case a occurs twice"),
        ([record(label_shape=(67, 49))], r"case_1: image \(49, 67\) and mask \(67, 49\) differ in size"),
        ([record(), record("z", value=255)], r"z: label values \[255\] are not among"),
    ],
)
def test_faulty_cases_are_refused_and_nothing_is_kept(tmp_path, records, message):
    with pytest.raises(SkipSegError, match=message):
        build(tmp_path / "out", ABOUT, records)
    assert list(tmp_path.iterdir()) == []


def test_finished_dataset_is_left_alone(tmp_path, tree, capsys):
    build(tmp_path / "out", ABOUT, [record()], sha256="12")
    before, written = tree(tmp_path / "out"), (tmp_path / "out" / "dataset.json").stat().st_mtime_ns
    again = build(tmp_path / "out", ABOUT, [record()], sha256="12")
    assert "already prepared" in capsys.readouterr().err
    assert tree(tmp_path / "out") == before
    assert (tmp_path / "out" / "dataset.json").stat().st_mtime_ns == written
    assert [case.name for case in again.cases] == ["case_1"]


def test_other_content_is_never_overwritten(tmp_path):
    out = tmp_path / "out"
    build(out, ABOUT, [record()], sha256="12")
    with pytest.raises(SkipSegError, match="made with other files or groups"):
        build(out, ABOUT, [record()], sha256="34")
    with pytest.raises(SkipSegError, match="made with other options"):
        build(out, ABOUT, [record()], sha256="12", options={"seed": 1})
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "text.tex").write_text("years of work")
    with pytest.raises(SkipSegError, match="is not a dataset"):
        build(tmp_path / "thesis", ABOUT, [record()])
    with pytest.raises(SkipSegError, match="is not a dataset"):
        build(tmp_path / "thesis" / "text.tex", ABOUT, [record()])


def test_empty_folder_is_taken(tmp_path):
    (tmp_path / "out").mkdir()
    assert build(tmp_path / "out", ABOUT, [record()]).root == tmp_path / "out"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES])
def test_full_disk_is_one_line_and_leaves_nothing(tmp_path, monkeypatch, code):
    calls = []

    def write(target, content):
        calls.append(target)
        if len(calls) == 3:
            raise OSError(code, os.strerror(code))
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)

    monkeypatch.setattr(module, "write_bytes", write)
    with pytest.raises(SkipSegError, match=rf"cannot be written \({os.strerror(code)}\)"):
        build(tmp_path / "out", ABOUT, [record("a"), record("b")])
    assert list(tmp_path.iterdir()) == []


def test_bug_of_ours_is_not_disguised(tmp_path, monkeypatch):
    def write(*_):
        raise OSError(errno.EBADF, "bad descriptor")

    monkeypatch.setattr(module, "write_bytes", write)
    with pytest.raises(OSError, match="bad descriptor") as caught:
        build(tmp_path / "out", ABOUT, [record()])
    assert not isinstance(caught.value, SkipSegError)


@pytest.mark.skipif(shutil.which("mount") is None or os.geteuid() != 0, reason="needs the right to mount a tmpfs")
def test_really_full_disk(tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", small], capture_output=True).returncode:
        pytest.skip("a tmpfs cannot be mounted here")
    try:
        with pytest.raises(SkipSegError, match="No space left on device"):
            data_prep.prepare("phantom", small / "out", options={"cases": 40})
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", small], check=True)


def test_kill_9_then_rerun_equals_uninterrupted(tmp_path, tree, root):
    options = {"cases": 20, "size": 32, "spatial_dims": 3}
    whole = data_prep.prepare("phantom", tmp_path / "whole", options=options)
    out, draft = tmp_path / "out", tmp_path / ".out.partial"
    code = f"import data_prep, pathlib; data_prep.prepare('phantom', pathlib.Path({str(out)!r}), None, {options!r})"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=root, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while len(list(draft.glob("labelsTr/*.gz"))) < 3 and time.monotonic() < deadline:
            time.sleep(0.001)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert process.returncode == -signal.SIGKILL
    assert draft.is_dir()  # it was killed in the middle
    assert not out.exists()
    data_prep.prepare("phantom", out, options=options)
    assert tree(out) == tree(whole.root)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "whole"]


def test_a_second_prepare_in_one_place_waits_for_the_first(tmp_path):
    command = [sys.executable, "-m", "segmentation", "prepare", "phantom", "--out", str(tmp_path / "new" / "out")]
    command += ["--phantom.cases", "3", "--phantom.size", "32"]
    with alone(tmp_path / "new"):
        (tmp_path / "new" / ".out.partial").mkdir(parents=True)  # as the first one would, and which the second removes
        waiting = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert waiting.stderr
        assert "another program prepares a dataset" in waiting.stderr.readline()
        assert [p.name for p in (tmp_path / "new").iterdir()] == [".out.partial"]
    assert waiting.wait() == 0
    waiting.stderr.close()
    assert len(list((tmp_path / "new" / "out" / "imagesTr").iterdir())) == 3


def test_folder_that_cannot_be_created_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "new"):
        with pytest.raises(SkipSegError, match="cannot be written"), alone(folder):
            pass


def test_hash_of_a_folder_follows_content_and_not_place(tmp_path):
    hashes = []
    for place, content in (("a", b"x"), ("b", b"x"), ("c", b"y")):
        (tmp_path / place).mkdir()
        file = tmp_path / place / "file"
        file.write_bytes(content)
        hashes.append(hash_source(tmp_path / place, [Record("case", "p", lambda: None, (file,))]))  # pyright: ignore - never made
    assert hashes[0] == hashes[1] != hashes[2]


def test_hash_of_a_folder_follows_patients_and_strata(tmp_path):
    groups = [("p", "a"), ("q", "a"), ("p", "b")]
    records = [Record("case", patient, lambda: None, stratum=stratum) for patient, stratum in groups]  # pyright: ignore - never made
    assert len({hash_source(tmp_path, [record]) for record in records}) == 3


def test_encoders_keep_values_and_geometry(tmp_path):
    rng = np.random.default_rng(0)
    colour = rng.integers(0, 256, (3, 49, 67), dtype=np.uint8)
    (tmp_path / "a.png").write_bytes(encode_png(colour, np.eye(4)))
    np.testing.assert_array_equal(read_scan(tmp_path / "a.png").array, colour)
    volume = rng.integers(-1000, 3000, (1, 13, 7, 5), dtype=np.int16)
    affine = np.array([[-0.9, 0.1, 0, 40], [0.1, 0.9, 0, -30], [0, 0, 2.5, 7], [0, 0, 0, 1]])
    (tmp_path / "a.nii.gz").write_bytes(encode_nifti(volume, affine))
    scan = read_scan(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(scan.array, volume)
    np.testing.assert_allclose(scan.affine, affine, atol=1e-6)
