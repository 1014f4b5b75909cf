import base64
import gzip
import io
import json
import re
import shutil

import pytest
from PIL import Image

from segmentation.report import gallery
from segmentation.report.gallery import collect
from segmentation.report.page import write_report
from segmentation.report.read import read_study
from segmentation.report.results import build_results
from segmentation.report.volumes import read_volume
from tests.report.volumes import add_volumes


def gallery_of(folder, **limits):
    study = read_study(folder)
    return collect(study, build_results(study), **limits)


def blocks(page):
    """What the page holds for the viewer, by case."""
    found = re.findall(r'<script type="application/json" id="volume-\d+">(.*?)</script>', page)
    return {block["case"]: block for block in map(json.loads, found)}


@pytest.fixture
def study(study_writer, tmp_path):
    folder = study_writer(tmp_path / "study")
    add_volumes(folder)
    return folder


def test_pictures_come_worst_first_and_small(study_writer, tmp_path):
    folder = study_writer(tmp_path / "study")
    for picture in folder.glob("runs/*/evaluation/overlays/*.png"):
        Image.linear_gradient("L").resize((300, 260)).convert("RGB").save(picture)
    results = build_results(read_study(folder))
    shown = gallery_of(folder)
    assert [row.case for row in shown.rows] == [case["case"] for case in results["cases"]]
    for row in shown.rows:
        assert [picture.condition for picture in row.pictures] == ["concat", "none"]
        for picture in row.pictures:
            assert (picture.width, picture.height) == (300, 260)
            kind, _, content = picture.data.partition(";base64,")
            assert kind == "data:image/webp"
            assert base64.b64decode(content)[8:12] == b"WEBP"


def test_names_that_look_like_ranks_are_no_ranks(study_writer, run_writer, tmp_path):
    folder = study_writer(tmp_path / "study", folds=1)
    for condition, run in (("concat", "c0-f0-s0"), ("none", "c1-f0-s0")):
        shutil.rmtree(folder / "runs" / run)
        run_writer(folder / "runs" / run, {f"{n:02}": f"p{n}" for n in (3, 1, 4, 2)}, condition=condition)
        for overlay in (folder / "runs" / run / "evaluation" / "overlays").iterdir():
            shade = 60 * int(overlay.stem.partition("_")[2])
            Image.new("RGB", (20, 20), (shade, shade, shade)).save(overlay)
    rows = gallery_of(folder).rows
    assert sorted(row.case for row in rows) == ["01", "02", "03", "04"]
    for row in rows:
        assert [picture.condition for picture in row.pictures] == ["concat", "none"]
        for picture in row.pictures:
            shown = Image.open(io.BytesIO(base64.b64decode(picture.data.partition(";base64,")[2])))
            assert abs(shown.convert("L").getpixel((5, 5)) - 60 * int(row.case)) < 10


def test_overlays_stop_at_the_limit_and_must_be_png(study_writer, tmp_path):
    folder = study_writer(tmp_path / "study")
    for number, picture in enumerate(sorted(folder.glob("runs/*/evaluation/overlays/*.png"))):
        if number == 0:
            picture.write_text("<svg onload='alert(1)'/>")
        else:
            Image.effect_noise((200, 200), 90).convert("RGB").save(picture)
    path = write_report(folder)
    assert "onload" not in path.read_text()
    shown = gallery_of(folder, most=200_000)
    assert 0 < len(shown.rows) < shown.available == 6
    assert sum(len(picture.data) for row in shown.rows for picture in row.pictures) <= 200_000


def test_a_case_holds_its_scan_once_and_the_errors_of_each_condition(study):
    page = write_report(study).read_text()
    held = blocks(page)
    assert len(held) == 6
    for case, block in held.items():
        assert [mask["name"] for mask in block["masks"]] == ["concat", "none"]
        assert block["image"]["name"] == case
        assert gzip.decompress(base64.b64decode(block["image"]["data"]))[344:347] == b"n+1"
        assert {label["name"] for mask in block["masks"] for label in mask["labels"]} == {
            "agreement (TP)",
            "false alarm (FP)",
            "missed (FN)",
        }
        assert all(re.fullmatch("#[0-9a-f]{6}", label["colour"]) for label in block["masks"][0]["labels"])
    assert page.count('data-volume="volume-') == 12
    assert "6 of 6 cases with volumes can be opened" in page
    assert page.count('id="skipseg-niivue"') == 1
    assert "Redistributions in binary form" in page
    assert len(page) < 5_000_000


def test_several_classes_are_named(study_writer, tmp_path):
    classes = ("liver", "spleen")
    folder = study_writer(tmp_path / "study", classes=classes)
    add_volumes(folder, classes)
    labels = next(iter(blocks(write_report(folder).read_text()).values()))["masks"][0]["labels"]
    assert {"liver: missed (FN)", "spleen: agreement (TP)"} < {label["name"] for label in labels}


def test_volumes_stop_at_the_limit_and_the_page_says_so(study, monkeypatch):
    one = read_volume("x", [("concat", next(study.glob("runs/*/evaluation/volumes/*.json")))])
    assert one is not None
    monkeypatch.setattr(gallery, "MOST_VOLUME_CHARACTERS", int(3.5 * one.size))
    page = write_report(study).read_text()
    assert len(blocks(page)) == 3
    assert "3 of 6 cases with volumes can be opened" in page


def test_without_niivue_slices_remain_and_the_page_says_so(study, monkeypatch):
    monkeypatch.setattr(gallery, "viewer_assets", lambda: None)
    page = write_report(study).read_text()
    assert "the slices below take their place" in page
    assert "skipseg[ui]" in page
    assert not blocks(page)
    assert "data-volume" not in page
    assert "blob:" not in page
    assert page.count("<img") == 12


def test_a_study_without_volumes_needs_no_viewer(study_writer, tmp_path):
    page = write_report(study_writer(tmp_path / "study")).read_text()
    assert "skipseg-niivue" not in page
    assert "blob:" not in page
    assert page.count("<img") == 12


def test_a_scan_that_differs_between_conditions_is_not_mixed_up(study):
    for changed in study.glob("runs/c1-*/evaluation/volumes/*_image.nii.gz"):
        changed.write_bytes(gzip.compress(b"another scan"))
    held = blocks(write_report(study).read_text())
    assert [len(block["masks"]) for block in held.values()] == [1] * 6


DAMAGES = [
    '{"window": [0, 1]}',
    "not json",
    "[]",
    '{"shrunk": [1, 1, 1], "window": [0, 1], "at_mm": [0, 0], "labels": []}',
    '{"shrunk": [1, 1, 1], "window": [0, 1e999], "at_mm": [0, 0, 0], "labels": []}',
    '{"shrunk": [1, 1, 1e999], "window": [0, 1], "at_mm": [0, 0, 0], "labels": []}',
    '{"shrunk": [1, 1, 1], "window": [0, 1], "at_mm": [0, 0, 0], "labels": [{"value": 1, "class": "a", "kind": "b"}]}',
    '{"shrunk": [1, 1, 1], "window": [0, 1], "at_mm": [0, 0, 0], "labels": [{"value": 1e9, "class": "a", "kind": '
    '"missed (FN)"}]}',
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_volume_is_absent(study, damage):
    for path in study.glob("runs/*/evaluation/volumes/*.json"):
        path.write_text(damage)
    assert not blocks(write_report(study).read_text())


def test_what_is_no_gzip_file_is_absent(study):
    for path in study.glob("runs/*/evaluation/volumes/*_errors.nii.gz"):
        path.write_text("<script>alert(1)</script>")
    assert not blocks(write_report(study).read_text())


def test_hostile_class_names_stay_text(study):
    for path in study.glob("runs/*/evaluation/volumes/*.json"):
        facts = json.loads(path.read_text())
        facts["labels"] = [
            {"value": 1, "class": name, "kind": "missed (FN)"}
            for name in ("</script><script>alert(1)</script>", "b\x1b")
        ]
        path.write_text(json.dumps(facts))
    page = write_report(study).read_text()
    assert "<script>alert(1)" not in page
    labels = next(iter(blocks(page).values()))["masks"][0]["labels"]
    assert [label["name"] for label in labels] == [
        "</script><script>alert(1)</script>: missed (FN)",
        "b\N{REPLACEMENT CHARACTER}: missed (FN)",
    ]
