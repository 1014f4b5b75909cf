"""The benchmark of the loader on small scans, without nnU-Net."""

import json

import numpy as np
import pytest

from tests.benchmarks import loader, skipseg_loader
from tests.benchmarks.rows import run


def test_a_copy_of_a_patch_takes_time():
    assert 0 < loader.floor((64, 64, 64)) < 1


def test_batches_go_on_from_one_epoch_to_the_next(tmp_path):
    loader.make_data(loader.Work((40, 36, 32), 1, {}), tmp_path)
    stream = skipseg_loader.batches(tmp_path, [16, 16, 16], batch=1)
    seen = [next(stream)[0].numpy().tobytes() for _ in range(101)]
    assert len(set(seen)) == 101
    arrays = [np.load(path) for path in sorted((tmp_path / "arrays").glob("*.npy"))]
    assert [array.shape for array in arrays] == [(40, 36, 32)] * 2


@pytest.mark.slow
def test_small_benchmark_measures_ours_and_monai(tmp_path):
    arguments = ["--size", "small", "--repeats", "1", "--work", str(tmp_path), "--peers", str(tmp_path / "none")]
    assert run(loader.rows, [*arguments, "--json", str(tmp_path / "rows.json")]) == 0
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [row["peer_name"] for row in rows] == ["MONAI", None] * 2
    assert all(0 < row["ours"] < row["floor"] for row in rows)
    assert [row["target"] for row in rows] == [2.0, None] * 2
