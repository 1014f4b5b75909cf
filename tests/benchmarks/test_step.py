"""The benchmark of a training step on small networks, without nnU-Net."""

import json
import sys

import pytest

from segmentation.model.unet import count_parameters
from tests.benchmarks import monai_step, step
from tests.benchmarks.nnunet_model import PlainConvUNet
from tests.benchmarks.rows import run
from tests.benchmarks.skipseg_step import make_network
from tests.benchmarks.worker import Worker


@pytest.mark.parametrize("work", step.SIZES["full"].values())
def test_the_networks_have_the_same_parameters(work):
    told = work.to_plain(threads=1)
    ours, theirs = make_network(told), monai_step.make_network(told)
    assert count_parameters(ours) == count_parameters(theirs)
    plan = {"features_per_stage": told["widths"], "strides": told["strides"]}
    plan["kernel_sizes"] = [[3] * len(told["patch"])] * len(told["widths"])
    nnunet = PlainConvUNet(plan, 1, told["classes"])
    spare = sum(value.numel() for name, value in nnunet.named_parameters() if name.endswith("conv.bias"))
    coarsest = told["classes"] * (told["widths"][-2] + 1)
    assert count_parameters(nnunet) - spare - coarsest == count_parameters(ours)


def test_the_floor_has_every_convolution_once():
    told = step.SIZES["small"]["small 3-D"].to_plain(threads=1)
    found = step.convolutions(told)
    # Two in each of five blocks, two up, one output.
    assert len(found) == 2 * 5 + 2 + 1
    assert tuple(found[0][1]) == (2, 1, 8, 12, 8)
    assert tuple(found[-1][2]) == (2, 3, 8, 12, 8)
    assert 0 < step.floor(told, repeats=1) < 10


@pytest.mark.slow
def test_ours_takes_a_step_for_each_line(tmp_path):
    path = step.write_work(step.SIZES["small"]["small 2-D"].to_plain(threads=1), tmp_path)
    command = [sys.executable, "-m", "tests.benchmarks.skipseg_step", path]
    with Worker(command, tmp_path / "log.txt", {"PYTHONPATH": str(step.ROOT)}) as worker:
        times = [worker() for _ in range(3)]
    assert all(each["wall_s"] > 0 for each in times)
    assert len({each["parameters"] for each in times}) == 1


@pytest.mark.slow
def test_small_benchmark_measures_ours_and_monai(tmp_path):
    arguments = ["--size", "small", "--repeats", "1", "--work", str(tmp_path), "--peers", str(tmp_path / "none")]
    assert run(step.rows, [*arguments, "--json", str(tmp_path / "rows.json")]) == 0
    found = json.loads((tmp_path / "rows.json").read_text())
    assert [row["peer_name"] for row in found] == ["MONAI"] * 2
    assert all(row["floor"] > 0 and row["target"] == 0.8 for row in found)
