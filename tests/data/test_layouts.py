import json

import pytest

from segmentation import SkipSegError
from segmentation.data.layouts import open_dataset
from segmentation.data.manifest import Case

LABELS = {"background": 0, "lesion": 1}


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def describe(folder, **content):
    (folder / "dataset.json").write_text(json.dumps(content))


@pytest.fixture
def raw(tmp_path):
    """Two cases of two channels in nnU-Net v2 layout."""
    touch(tmp_path, *(f"imagesTr/{case}_000{channel}.nii.gz" for case in ("p.2", "p.1") for channel in (0, 1)))
    touch(tmp_path, "labelsTr/p.1.nii.gz", "labelsTr/p.2.nii.gz", "imagesTr/.DS_Store", "imagesTr/._p.1_0000.nii.gz")
    describe(tmp_path, channel_names={"0": "T1", "1": "CT"}, labels=LABELS, numTraining=2, file_ending=".nii.gz")
    return tmp_path


@pytest.fixture
def msd(tmp_path):
    """Two cases in MSD layout, as its archives hold them."""
    touch(tmp_path, *(f"{kind}/h_00{number}.nii.gz" for kind in ("imagesTr", "labelsTr") for number in (1, 4)))
    pairs = [{"image": f"./imagesTr/h_00{n}.nii.gz", "label": f"./labelsTr/h_00{n}.nii.gz"} for n in (4, 1)]
    labels = {"0": "background", "1": "Anterior"}
    describe(
        tmp_path, name="Hippocampus", reference="VUMC", licence="CC-BY-SA 4.0", modality={"0": "MRI"}, labels=labels,
        tensorImageSize="3D", numTraining=2, numTest=1, training=pairs, test=["./imagesTs/h_002.nii.gz"],
    )  # fmt: skip
    return tmp_path


def write_table(folder, text, **sidecar):
    touch(folder, "a.png", "b.png", "a_mask.png", "b_mask.png")
    table = folder / "scans.csv"
    table.write_text(text)
    if sidecar:
        table.with_suffix(".json").write_text(json.dumps(sidecar))
    return table


def test_nnunet_layout_is_read_in_place(raw):
    dataset = open_dataset(raw)
    images = tuple(raw / "imagesTr" / f"p.1_000{channel}.nii.gz" for channel in (0, 1))
    assert dataset.cases[0] == Case("p.1", images, raw / "labelsTr" / "p.1.nii.gz", "p.1")
    assert [case.name for case in dataset.cases] == ["p.1", "p.2"]
    assert (dataset.channel_names, dataset.labels, dataset.spatial_dims) == (("T1", "CT"), LABELS, 3)
    assert not dataset.patients_known
    assert dataset == open_dataset(raw / "dataset.json")


def test_a_description_may_leave_out_the_file_ending(raw):
    describe(raw, channel_names=["T1", "CT"], labels=LABELS)
    assert len(open_dataset(raw).cases) == 2
    touch(raw, "imagesTr/p.3_0000.nrrd")
    with pytest.raises(SkipSegError, match='names no "file_ending"'):
        open_dataset(raw)


def test_nnunet_file_lists_are_followed(raw):
    entry = {"images": ["imagesTr/p.2_0000.nii.gz", "imagesTr/p.2_0001.nii.gz"], "label": "labelsTr/p.1.nii.gz"}
    describe(raw, channel_names=["T1", "CT"], labels=LABELS, dataset={"mixed": entry})
    assert open_dataset(raw).cases[0].label == raw / "labelsTr" / "p.1.nii.gz"


def test_one_picture_may_hold_all_channels(tmp_path):
    touch(tmp_path, "imagesTr/eye_0000.png", "labelsTr/eye.png")
    describe(tmp_path, channel_names=["red", "green", "blue"], labels=LABELS, file_ending=".png")
    dataset = open_dataset(tmp_path)
    assert dataset.spatial_dims == 2
    assert len(dataset.cases[0].images) == 1


def test_patients_strata_and_all_else_are_read(raw):
    content = json.loads((raw / "dataset.json").read_text())
    describe(raw, **content, patients={"p.1": "x", "p.2": "x"}, strata={"p.2": "MR"}, license="MIT", centre="here")
    dataset = open_dataset(raw)
    assert [case.patient for case in dataset.cases] == ["x", "x"]
    assert [case.stratum for case in dataset.cases] == ["", "MR"]
    assert dataset.patients_known
    assert (dataset.licence, dataset.extra) == ("MIT", {"centre": "here"})


def test_a_case_without_label_is_kept(raw):
    (raw / "labelsTr" / "p.2.nii.gz").unlink()
    assert [case.label is None for case in open_dataset(raw).cases] == [False, True]


def test_msd_layout_is_read_in_place(msd):
    dataset = open_dataset(msd)
    assert [case.name for case in dataset.cases] == ["h_001", "h_004"]
    assert dataset.cases[0].label == msd / "labelsTr" / "h_001.nii.gz"
    assert (dataset.name, dataset.source, dataset.licence) == ("Hippocampus", "VUMC", "CC-BY-SA 4.0")
    assert (dataset.channel_names, dataset.labels) == (("MRI",), {"background": 0, "Anterior": 1})


def test_msd_lists_of_nnunet_v1_lead_to_suffixed_channels(msd):
    for number in (1, 4):
        (msd / "imagesTr" / f"h_00{number}.nii.gz").rename(msd / "imagesTr" / f"h_00{number}_0000.nii.gz")
    assert open_dataset(msd).cases[1].images == (msd / "imagesTr" / "h_004_0000.nii.gz",)


def test_a_table_is_read_with_paths_relative_to_it(tmp_path):
    text = "case,image,label,patient,stratum\nb,b.png,,p1,benign\na,a.png;b.png,a_mask.png,p1,\n"
    table = write_table(tmp_path, text, channel_names=["gray", "edge"], label_remap={"255": 1}, licence="CC0-1.0")
    dataset = open_dataset(table)
    assert dataset.cases[0] == Case("a", (tmp_path / "a.png", tmp_path / "b.png"), tmp_path / "a_mask.png", "p1")
    assert dataset.cases[1].label is None
    assert (dataset.name, dataset.spatial_dims, dataset.label_remap) == ("scans", 2, {255: 1})
    assert (dataset.licence, dataset.labels) == ("CC0-1.0", {"background": 0, "foreground": 1})


def test_a_table_without_patients_says_that_they_are_unknown(tmp_path):
    dataset = open_dataset(write_table(tmp_path, "case,image,label\na,a.png,a_mask.png\n"))
    assert (dataset.cases[0].patient, dataset.patients_known, dataset.channel_names) == ("a", False, ("image",))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("case,image\na,a.png\n", "lacks the column 'label'; it has 'case', 'image'"),
        ("case,image,label\n", "describes no case"),
        ("case,image,label\na,a.png,\n", "no case has a label file"),
        ("case,image,label\na,a.png,a_mask.png\na,b.png,b_mask.png\n", "several cases named 'a'"),
        ("case,image,label\na,a.png,a_mask.png,p1\n", "line 2 has more fields"),
        ("case,image,label\n,a.png,a_mask.png\n", "line 2 needs a case and an image"),
        ("case,image,label\na\n", "line 2 needs a case and an image"),
        ("case,image,label\n../a,a.png,a_mask.png\n", "cannot be a file name"),
        ("case,image,label\na,gone.png,a_mask.png\n", "gone.png, which does not exist"),
        ("case,image,label\na,a.png,gone.png\n", "gone.png, which does not exist"),
        ("case,image,label,patient\na,a.png,a_mask.png,p\nb,b.png,b_mask.png,\n", "names no patient for 'b'"),
        ("case,image,label\na,a.png,a_mask.png\nb,a.png;b.png,b_mask.png\n", "'b' has 2 image files"),
    ],
)
def test_a_bad_table_is_refused(tmp_path, text, message):
    with pytest.raises(SkipSegError, match=message):
        open_dataset(write_table(tmp_path, text))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": {"background": 0, "lesion": [1, 2]}}, "region"),
        ({"labels": {"background": 0, "lesion": 2}}, "without gaps"),
        ({"channel_names": ["T1"]}, "names 1 channel.*has 2 image files"),
        ({"channel_names": {"1": "T1"}}, "must name channels"),
        ({"spatial_dims": 4}, "must be 2 or 3, got 4"),
        ({"label_remap": {"255": 9}}, "leads to"),
        ({"patients": ["p.1"]}, '"patients" must map'),
        ({"patients": {"p.1": "x"}}, "names no patient for 'p.2'"),
        ({"file_ending": ".nrrd"}, "describes no case"),
        ({"training": ["a.nii.gz"]}, 'needs "image"'),
        ({"dataset": {"a": {"label": "x"}}}, 'needs "images"'),
    ],
)
def test_a_bad_description_is_refused(raw, change, message):
    describe(raw, **{**json.loads((raw / "dataset.json").read_text()), **change})
    with pytest.raises(SkipSegError, match=message):
        open_dataset(raw)


def test_files_that_do_not_fit_the_layout_are_refused(raw):
    touch(raw, "labelsTr/orphan.nii.gz")
    with pytest.raises(SkipSegError, match="'orphan' without an image"):
        open_dataset(raw)
    touch(raw, "imagesTr/orphan.nii.gz")
    with pytest.raises(SkipSegError, match="no channel number; name it orphan_0000"):
        open_dataset(raw)
    (raw / "imagesTr" / "orphan.nii.gz").rename(raw / "imagesTr" / "orphan_0001.nii.gz")
    with pytest.raises(SkipSegError, match=r"channel files \[1\]"):
        open_dataset(raw)


def test_msd_cases_of_one_name_or_without_file_are_refused(msd):
    content = json.loads((msd / "dataset.json").read_text())
    describe(msd, **{**content, "training": [content["training"][0]] * 2})
    with pytest.raises(SkipSegError, match="several cases named 'h_004'"):
        open_dataset(msd)
    (msd / "labelsTr" / "h_004.nii.gz").unlink()
    describe(msd, **content)
    with pytest.raises(SkipSegError, match=r"labelsTr/h_004.nii.gz, which does not exist"):
        open_dataset(msd)


def test_pictures_and_volumes_do_not_mix(tmp_path):
    touch(tmp_path, "b.nii.gz", "b_mask.nii.gz")
    table = write_table(tmp_path, "case,image,label\na,a.png,a_mask.png\nb,b.nii.gz,b_mask.nii.gz\n")
    with pytest.raises(SkipSegError, match="mixes pictures and volumes"):
        open_dataset(table)


def test_what_is_no_dataset_is_refused(tmp_path):
    with pytest.raises(SkipSegError, match=r"has no dataset.json; give a folder in nnU-Net v2 or MSD layout"):
        open_dataset(tmp_path)
    with pytest.raises(SkipSegError, match="is no dataset"):
        open_dataset(tmp_path / "nowhere")
    (tmp_path / "dataset.json").write_text("[]")
    with pytest.raises(SkipSegError, match="must hold a JSON object, got a list"):
        open_dataset(tmp_path)
    (tmp_path / "dataset.json").write_text("{")
    with pytest.raises(SkipSegError, match="not valid JSON"):
        open_dataset(tmp_path)
    (tmp_path / "dataset.json").write_text('{"file_ending": ".png"}')
    with pytest.raises(SkipSegError, match="imagesTr does not exist"):
        open_dataset(tmp_path)


def test_a_folder_that_cannot_be_listed_is_refused(tmp_path):
    (tmp_path / "dataset.json").write_text('{"file_ending": ".png"}')
    (tmp_path / "imagesTr").touch()
    with pytest.raises(SkipSegError, match="imagesTr cannot be read"):
        open_dataset(tmp_path)
