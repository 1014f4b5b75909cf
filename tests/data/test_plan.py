import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from segmentation import SkipSegError
from segmentation.config import DataSettings, PlanSettings, TrainSettings
from segmentation.data import plan as plan_module
from segmentation.data.fingerprint import ChannelFingerprint, Fingerprint
from segmentation.data.patches import choose_patch, choose_strides
from segmentation.data.plan import (
    BUDGETS,
    Plan,
    make_plan,
    plan_dataset,
    plan_path,
)
from segmentation.plain import fill
from segmentation.training.job import find_plan, open_source

CHANNEL = ChannelFingerprint("CT", -100, 300, 50, 80, -500, 400, 2000)
PLANNED = {
    "data.dims",
    "data.spacing_mm",
    "data.patch_size",
    "data.batch_size",
    "data.context_slices",
    "network.depth",
    "network.width",
    "augment.flip_axes",
    "epochs",
    "steps_per_epoch",
    "tolerance_mm",
}


def fingerprint(shape, spacing_mm=None) -> Fingerprint:
    spacing_mm = spacing_mm or (1.0,) * len(shape)
    return Fingerprint(len(shape), 9, 5, tuple(shape), tuple(spacing_mm), tuple(spacing_mm), (CHANNEL,))


PICTURES = fingerprint((565, 584))
SMALL_VOLUMES = fingerprint((36, 50, 35))
CT = fingerprint((512, 512, 120), (0.8, 0.8, 3.0))


@pytest.mark.parametrize("hardware", ["cpu", "cuda"])
@pytest.mark.parametrize("found", [PICTURES, SMALL_VOLUMES, CT, fingerprint((3, 2)), fingerprint((9, 9, 1))])
def test_a_plan_fills_every_open_setting_within_the_budget(found, hardware):
    plan = make_plan(found, hardware)
    assert plan.choices.keys() == PLANNED
    assert all(choice.why for choice in plan.choices.values())
    assert plan.normalisation_why
    values, budget = plan.values, BUDGETS[hardware]
    dims = values["data.dims"]
    assert len(values["data.patch_size"]) == dims
    strides, kernels = choose_strides(
        values["data.patch_size"], plan.preprocessing(dims, values["data.spacing_mm"], 0).array_spacing_mm[-dims:]
    )
    assert len(strides) == values["network.depth"] == len(kernels) - 1
    factors = [math.prod(axis) for axis in zip(*strides, strict=True)]
    assert all(size % factor == 0 for size, factor in zip(values["data.patch_size"], factors, strict=True))
    limit = budget.voxels_2d if dims == 2 else budget.voxels_3d
    assert math.prod(n - f + 1 for n, f in zip(values["data.patch_size"], factors, strict=True)) <= limit
    settings = fill(TrainSettings(Path("data"), Path("run")), values)
    assert None not in (settings.epochs, settings.network.depth, settings.data.patch_size, settings.tolerance_mm)


def test_pictures_are_planned_in_2d_and_mirrored_both_ways():
    plan = make_plan(PICTURES, "cpu")
    assert plan.values["data.dims"] == 2
    assert plan.values["augment.flip_axes"] == [0, 1]
    assert plan.values["data.context_slices"] == 0
    assert plan.preprocessing(2, (1.0, 1.0), 3).slice_axis is None
    assert plan.preprocessing(2, (1.0, 1.0), 3).context_slices == 0
    with pytest.raises(SkipSegError, match="dims 3 was asked for, but the dataset holds pictures"):
        make_plan(PICTURES, "cpu", dims=3)


def test_small_volumes_are_planned_in_3d_and_whole():
    plan = make_plan(SMALL_VOLUMES, "cuda")
    assert plan.values["data.dims"] == 3
    assert all(patch >= size for patch, size in zip(plan.values["data.patch_size"], (36, 50, 35), strict=True))
    assert plan.values["augment.flip_axes"] == [0]
    assert plan.preprocessing(3, (1.0,) * 3, 2).slice_axis is None


def test_large_volumes_on_a_cpu_are_planned_in_slices_across_the_thickest_axis():
    plan = make_plan(CT, "cpu")
    assert plan.values["data.dims"] == 2
    assert "too many for 3-D" in plan.choices["data.dims"].why
    prepared = plan.preprocessing(2, plan.values["data.spacing_mm"], plan.values["data.context_slices"])
    assert prepared.slice_axis == 2
    assert prepared.network_channels == 1 + 2 * plan.values["data.context_slices"] > 1
    assert plan.values["tolerance_mm"] == 3.0
    assert make_plan(CT, "cuda").values["data.dims"] == 3
    assert make_plan(CT, "cpu", dims=3).choices["data.dims"].why == "asked for"


BLOBS, FINE = (0.99, 0.98, 0.96, 0.94, 0.9), (0.87, 0.8, 0.7, 0.6, 0.5)


@pytest.mark.parametrize(
    ("shape", "kept", "spacing", "seen"),
    [
        ((270, 320), BLOBS, 3.0, "100% of a scan, not 19%"),
        ((400, 400), BLOBS, 3.0, "93% of a scan, not 10%"),
        ((2000, 2000), BLOBS, 4.0, "7% of a scan, not 0%"),  # six times would lose too much of the labels
    ],
)
def test_voxels_grow_until_a_patch_sees_nearly_all_of_a_scan(shape, kept, spacing, seen):
    found = replace(fingerprint(shape), coarse_kept=kept)
    choice = make_plan(found, "cpu").choices["data.spacing_mm"]
    assert choice.value == [spacing, spacing]
    share = dict(zip((2, 3, 4), kept, strict=False))[int(spacing)]
    assert choice.why == (
        f"{spacing:g} times the finest of the median: the usual patch of 16384 voxels sees {seen}, and labels "
        f"keep {share:.1%} (Dice, or parts)"
    )


@pytest.mark.parametrize(
    ("shape", "kept", "hardware", "why"),
    [
        (
            (565, 584),
            FINE,
            "cpu",
            "the usual patch of 16384 voxels sees 5% of a scan, but in voxels twice as wide labels would keep 87.0% "
            "(Dice, or parts)",
        ),
        ((565, 584), (), "cpu", "median of the dataset; across thick slices the finest tenth"),
        ((130, 134), BLOBS, "cpu", "median of the dataset; across thick slices the finest tenth"),
        ((4000, 4000), BLOBS, "cuda", "median of the dataset; across thick slices the finest tenth"),
    ],
)
def test_voxels_stay_as_they_are(shape, kept, hardware, why):
    choice = make_plan(replace(fingerprint(shape), coarse_kept=kept), hardware).choices["data.spacing_mm"]
    assert choice.value == [1.0, 1.0]
    assert choice.why.endswith(why)


def test_thick_axes_and_those_across_slices_do_not_grow_with_the_others():
    ct = replace(CT, coarse_kept=BLOBS)
    assert make_plan(ct, "cpu").values["data.spacing_mm"] == [3.2, 3.2, 3.0]
    assert make_plan(ct, "cpu", dims=3).values["data.spacing_mm"] == [3.2, 3.2, 3.0]
    even = replace(fingerprint((300, 300, 300)), coarse_kept=BLOBS)
    assert make_plan(even, "cpu").values["data.spacing_mm"] == [3.0, 3.0, 1.0]


@pytest.mark.parametrize(("thick", "flips"), [(0, []), (1, [0]), (2, [0])])
def test_slices_are_mirrored_left_to_right_wherever_that_axis_went(thick, flips):
    spacing = [1.0, 1.0, 1.0]
    spacing[thick] = 4.0
    plan = make_plan(fingerprint((99, 99, 99), spacing), "cpu", dims=2)
    assert plan.slice_axis == thick
    assert plan.values["augment.flip_axes"] == flips


@pytest.mark.parametrize("found", [PICTURES, SMALL_VOLUMES])
def test_what_has_a_left_and_a_right_class_is_not_mirrored(found):
    choice = make_plan(replace(found, sided=True), "cpu").choices["augment.flip_axes"]
    assert (choice.value, choice.why) == ([], "classes are told apart by left and right, which a mirror exchanges")


@given(st.lists(st.integers(1, 600), min_size=2, max_size=3), st.integers(1, 40**3))
def test_patches_shrink_along_their_longest_axes_alone(shape, voxels):
    patch = choose_patch(shape, voxels)
    assert all(1 <= size <= whole for size, whole in zip(patch, shape, strict=True))
    assert math.prod(patch) <= voxels
    longest = max(patch)
    assert all(size in (whole, longest) for size, whole in zip(patch, shape, strict=True))
    if math.prod(shape) > voxels:
        grown = [min(size + 1, whole) if size == longest else size for size, whole in zip(patch, shape, strict=True)]
        assert math.prod(grown) > voxels


@given(st.lists(st.tuples(st.integers(1, 300), st.floats(0.3, 60)), min_size=2, max_size=3))
def test_strides_keep_four_voxels_and_wait_for_thick_axes(axes):
    patch, spacing = (list(values) for values in zip(*axes, strict=True))
    strides, kernels = choose_strides(patch, spacing)
    assert 1 <= len(strides) <= 5
    assert len(kernels) == len(strides) + 1
    if not any(n >= 8 and mm <= 2 * min(spacing) for n, mm in zip(patch, spacing, strict=True)):
        assert strides == [[2] * len(patch)]  # too small to halve: one step is taken anyway
        return
    size = patch
    for kernel, step in zip(kernels, [*strides, [1] * len(patch)], strict=True):
        thick = [mm > 2 * min(spacing) for mm in spacing]
        assert kernel == [1 if t else 3 for t in thick]
        assert all(s == 1 or not t for s, t in zip(step, thick, strict=True))
        size = [math.ceil(n / s) for n, s in zip(size, step, strict=True)]
        spacing = [mm * s for mm, s in zip(spacing, step, strict=True)]
    assert all(n >= 4 or n == whole for n, whole in zip(size, patch, strict=True))


def test_an_axis_too_thick_to_the_end_is_never_looked_along():
    strides, kernels = choose_strides([256, 256, 20], [0.5, 0.5, 50.0])
    assert len(strides) == 5
    assert kernels == [[3, 3, 1]] * 6


def test_a_plan_survives_json(tmp_path: Path):
    plan = make_plan(CT, "cpu")
    plan.write(tmp_path / "plan.json")
    assert Plan.read(tmp_path / "plan.json") == replace(plan, normalisation=list(plan.normalisation))
    content = json.loads((tmp_path / "plan.json").read_text())
    assert content["settings"]["epochs"].keys() == {"value", "why"}


@pytest.mark.parametrize("content", ["[]", "{}", '{"settings": {"epochs": 3}}', '{"settings": []}', "{"])
def test_a_file_that_is_no_plan_is_refused(tmp_path: Path, content):
    path = tmp_path / "plan.json"
    path.write_text(content)
    with pytest.raises(SkipSegError, match=r"plan.json is not (a plan|valid JSON)"):
        Plan.read(path)
    path.unlink()
    with pytest.raises(SkipSegError, match="does not exist"):
        Plan.read(path)


def test_an_edited_plan_is_used_as_it_stands(make_dataset, tmp_path: Path):
    dataset = make_dataset(tmp_path / "data", dims=3)
    path, plan = plan_dataset(PlanSettings(dataset.root, device="cpu", cache=tmp_path / "cache"))
    assert path == dataset.root / "plan.json" == plan_path(dataset.root)
    content = json.loads(path.read_text())
    content["settings"]["epochs"]["value"] = 7
    path.write_text(json.dumps(content))
    settings = TrainSettings(dataset.root, tmp_path / "run", device="cpu")
    found = find_plan(open_source(dataset.root, tmp_path / "cache"), settings)
    assert found.values == plan.values | {"epochs": 7}
    assert find_plan(open_source(dataset.root, tmp_path / "cache"), replace(settings, plan=path)) == found
    with pytest.raises(SkipSegError, match=r"plan\.json holds another epochs"):
        plan_dataset(PlanSettings(dataset.root, device="cpu", cache=tmp_path / "cache"))
    assert Plan.read(path).values["epochs"] == 7


def test_what_was_edited_anywhere_in_a_plan_is_never_overwritten(make_dataset, tmp_path: Path):
    dataset = make_dataset(tmp_path / "data", dims=3)
    settings = PlanSettings(dataset.root, device="cpu", cache=tmp_path / "cache")
    path, _ = plan_dataset(settings)
    content = json.loads(path.read_text())
    content["settings"]["optim.learning_rate"] = {"value": 0.5, "why": "mine"}
    content["normalisation"]["value"][0]["low"] = -77.0
    content["slice_axis"] = 0
    del content["fingerprint"]["coarse_kept"]  # as an earlier version wrote it
    path.write_text(json.dumps(content))
    with pytest.raises(SkipSegError, match=r"holds another optim\.learning_rate, normalisation, slice_axis; delete it"):
        plan_dataset(settings)
    assert json.loads(path.read_text()) == content
    assert (
        find_plan(open_source(dataset.root, tmp_path / "cache"), TrainSettings(dataset.root, tmp_path)).slice_axis == 0
    )


def test_a_plan_that_is_named_and_plans_other_axes_is_refused(make_dataset, tmp_path: Path):
    dataset = make_dataset(tmp_path / "data", dims=3)
    path, plan = plan_dataset(PlanSettings(dataset.root, device="cpu", cache=tmp_path / "cache"))
    source = open_source(dataset.root, tmp_path / "cache")
    flat = TrainSettings(dataset.root, tmp_path / "run", device="cpu", data=DataSettings(dims=2))
    assert plan.values["data.dims"] == 3
    assert find_plan(source, flat).values["data.dims"] == 2, "the dataset's own plan gives way"
    with pytest.raises(SkipSegError, match=r"plans a network of 3 axes, but data\.dims 2 is asked for"):
        find_plan(source, replace(flat, plan=path))
    content = json.loads(path.read_text())
    del content["settings"]["data.dims"]
    path.write_text(json.dumps(content))
    with pytest.raises(SkipSegError, match=r"plans a network of None axes"):
        find_plan(source, replace(flat, plan=path))


def test_voxels_stay_as_they_are_where_the_patch_is_settled(make_dataset, tmp_path: Path):
    source = open_source(make_dataset(tmp_path / "data", dims=2).root, tmp_path / "cache")
    source = replace(source, fingerprint=replace(source.fingerprint, shape=(316, 298), coarse_kept=BLOBS))
    settings = TrainSettings(source.path, tmp_path / "run", device="cpu")
    assert find_plan(source, settings).values["data.spacing_mm"] == [3.0, 3.0]
    settled = replace(settings, data=DataSettings(patch_size=[64, 64]))
    assert find_plan(source, settled).values["data.spacing_mm"] == [1.0, 1.0]


def test_plan_of_other_data_is_refused(make_dataset, tmp_path: Path):
    dataset = make_dataset(tmp_path / "data", dims=2)
    path, _ = plan_dataset(PlanSettings(dataset.root, device="cpu", cache=tmp_path / "cache"))
    described = json.loads((dataset.root / "dataset.json").read_text())
    described["channel_names"] = {"0": "CT"}
    (dataset.root / "dataset.json").write_text(json.dumps(described))
    source = open_source(dataset.root, tmp_path / "cache")
    with pytest.raises(SkipSegError, match="was made for other data"):
        find_plan(source, TrainSettings(dataset.root, tmp_path / "run", device="cpu"))
    plan_dataset(PlanSettings(dataset.root, device="cpu", cache=tmp_path / "cache"))
    assert Plan.read(path).fingerprint.channels[0].name == "CT"


def test_a_plan_may_go_elsewhere_and_a_table_keeps_its_own(make_dataset, tmp_path: Path):
    dataset = make_dataset(tmp_path / "data", dims=2)
    path, plan = plan_dataset(PlanSettings(dataset.root, out=tmp_path / "my.json", cache=tmp_path / "cache"))
    assert path == tmp_path / "my.json"
    assert plan.values["data.dims"] == 2
    assert not (dataset.root / "plan.json").exists()
    (tmp_path / "scans.csv").touch()
    assert plan_path(tmp_path / "scans.csv") == tmp_path / "scans.plan.json"


def test_a_dataset_with_errors_goes_no_further(make_dataset, tmp_path: Path):
    dataset = make_dataset(tmp_path / "data", dims=2)
    for case in dataset.cases[:2]:
        Image.fromarray(np.full((3, 4), 1, np.uint8)).save(case.label)
    with pytest.raises(SkipSegError, match=r"cannot be trained on: .*case_00.*see `skipseg check`") as refused:
        plan_dataset(PlanSettings(dataset.root, cache=tmp_path / "cache"))
    assert "\n" not in str(refused.value)
    assert not (dataset.root / "plan.json").exists()


def test_warnings_of_the_check_are_said_once(make_dataset, tmp_path: Path, caplog):
    dataset = make_dataset(tmp_path / "data", dims=2)
    dataset.cases[3].label.unlink()
    plan_module._warn.cache_clear()
    for _ in range(2):
        plan_module.checked_dataset(dataset.root, tmp_path / "cache")
    said = [text for text in caplog.messages if "'case_03': no label map" in text]
    assert said == [f"{dataset.name}: 'case_03': no label map, so it takes no part in training"]


@pytest.mark.parametrize(("name", "value"), [("data.batch_size", "eight"), ("epochs", -3), ("network.no_such", 1)])
def test_value_edited_wrongly_is_refused_by_name(tmp_path, name, value):
    path = tmp_path / "plan.json"
    make_plan(fingerprint((40, 48, 40)), "cpu").write(path)
    content = json.loads(path.read_text())
    content["settings"][name] = {"value": value, "why": "edited"}
    path.write_text(json.dumps(content))
    with pytest.raises(SkipSegError, match=name.split(".")[-1]):
        Plan.read(path)
