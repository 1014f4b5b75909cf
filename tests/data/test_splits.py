import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segmentation import SkipSegError
from segmentation.data.manifest import Case, Dataset
from segmentation.data.splits import make_splits, read_fixed_splits

LABELS = {"background": 0, "lesion": 1}


def dataset_of(patients, root=Path("nowhere"), strata=None, known=True):
    cases = tuple(
        Case(f"c{number:03}", (), Path("mask.png"), patient, (strata or {}).get(patient, ""))
        for number, patient in enumerate(patients)
    )
    return Dataset("tiny", root, 2, ("gray",), LABELS, cases, patients_known=known)


def fix(dataset, content):
    (dataset.root / "splits.json").write_text(json.dumps(content))
    return dataset


@given(
    patients=st.lists(st.integers(0, 12), min_size=2, max_size=60).filter(lambda ids: len(set(ids)) > 1),
    data=st.data(),
)
def test_every_case_is_held_out_once_and_no_patient_stands_on_both_sides(patients, data):
    folds = data.draw(st.integers(2, len(set(patients))))
    dataset = dataset_of([f"p{number}" for number in patients], strata={f"p{n}": "ab"[n % 2] for n in patients})
    volumes = {case.name: number**2 for number, case in enumerate(dataset.cases)}
    splits = make_splits(dataset, folds, data.draw(st.integers(0, 3)), volumes)
    patient_of = {case.name: case.patient for case in dataset.cases}
    assert len(splits.folds) == folds
    assert Counter(name for fold in splits.folds for name in fold.val) == Counter(patient_of.keys())
    for fold in splits.folds:
        assert sorted((*fold.train, *fold.val)) == sorted(patient_of)
        assert not {patient_of[name] for name in fold.train} & {patient_of[name] for name in fold.val}


def test_the_same_arguments_give_the_same_folds_and_another_seed_others():
    dataset = dataset_of([f"p{number}" for number in range(20)])
    first = make_splits(dataset, 5, seed=0)
    assert make_splits(dataset, 5, seed=0) == first
    assert make_splits(dataset, 5, seed=1).hash != first.hash
    # A change of this hash would silently change every published split.
    assert first.hash.startswith("2cb4ac73b7218d87")


def test_the_order_of_the_cases_does_not_matter():
    dataset = dataset_of(["p1", "p2", "p3", "p1", "p4"])
    turned = Dataset("tiny", Path("nowhere"), 2, ("gray",), LABELS, dataset.cases[::-1])
    assert make_splits(turned, 3, seed=0).hash == make_splits(dataset, 3, seed=0).hash


def test_strata_and_volumes_are_balanced():
    strata = {f"p{number}": "rare" if number < 8 else "common" for number in range(40)}
    dataset = dataset_of(list(strata), strata=strata)
    volumes = {case.name: (number * 7919) % 40 for number, case in enumerate(dataset.cases)}
    stratum_of = {case.name: case.stratum for case in dataset.cases}
    for fold in make_splits(dataset, 4, 0, volumes).folds:
        assert len(fold.val) == 10
        assert Counter(stratum_of[name] for name in fold.val) == {"rare": 2, "common": 8}
        quartiles = Counter(volumes[name] // 10 for name in fold.val)
        assert set(quartiles) == {0, 1, 2, 3}
        assert max(quartiles.values()) <= 4


def test_patients_of_unlike_size_are_balanced_by_cases():
    dataset = dataset_of([*"aaaabbbbccdd"])
    for seed in range(5):
        assert [len(fold.val) for fold in make_splits(dataset, 2, seed).folds] == [6, 6]


def test_one_patient_is_left_out_at_a_time_in_order():
    splits = make_splits(dataset_of(["b", "a", "b", "c"]), "leave-one-patient-out", seed=7)
    assert [fold.val for fold in splits.folds] == [("c001",), ("c000", "c002"), ("c003",)]
    assert (splits.method, splits.grouping, splits.seed) == ("leave-one-patient-out", "patient", None)


def test_cases_without_label_take_no_part():
    dataset = dataset_of(["p1", "p2", "p3"])
    cases = (*dataset.cases, Case("unlabelled", (), None, "p4"))
    splits = make_splits(Dataset("tiny", Path("nowhere"), 2, ("gray",), LABELS, cases), 3, seed=0)
    assert all("unlabelled" not in (*fold.train, *fold.val) for fold in splits.folds)


def test_unknown_patients_are_said_to_be_grouped_by_case():
    assert make_splits(dataset_of(["c0", "c1"], known=False), 2, seed=0).grouping == "case"


@pytest.mark.parametrize(
    ("patients", "folds", "message"),
    [
        (["p1", "p2", "p3"], 5, "3 patients of tiny cannot fill 5 folds; choose 2 to 3"),
        (["p1", "p2"], 1, "cannot fill 1 folds"),
        (["p1", "p1"], 2, "labels of 1 patient, and a split needs 2.*contiguous blocks"),
        ([], "leave-one-patient-out", "labels of 0 patient"),
    ],
)
def test_too_few_patients_are_refused_with_a_remedy(patients, folds, message):
    with pytest.raises(SkipSegError, match=message):
        make_splits(dataset_of(patients), folds, seed=0)


def test_a_fold_that_does_not_exist_is_refused():
    splits = make_splits(dataset_of(["p1", "p2"]), 2, seed=0)
    assert splits.select(1) == splits.folds[1]
    with pytest.raises(SkipSegError, match="fold 2 does not exist; stratified 2-fold has folds 0 to 1"):
        splits.select(2)


def test_fixed_splits_win(tmp_path):
    folds = [{"train": ["c002", "c000"], "val": ["c001"]}]
    dataset = fix(dataset_of(["p1", "p2", "p3"], tmp_path), {"method": "official", "folds": folds})
    splits = make_splits(dataset, 3, seed=0)
    assert (splits.method, splits.grouping, splits.seed) == ("fixed: official", "patient", None)
    assert splits.folds[0].train == ("c000", "c002")


def test_the_hash_tells_folds_apart_and_nothing_else(tmp_path):
    dataset = dataset_of(["p1", "p2"], tmp_path)
    generated = make_splits(dataset, 2, seed=0)
    folds = [{"train": fold.train, "val": fold.val} for fold in generated.folds]
    assert make_splits(fix(dataset, {"folds": folds}), 2, seed=0).hash == generated.hash
    assert make_splits(fix(dataset, {"folds": folds[::-1]}), 2, seed=0).hash != generated.hash


def test_contiguous_blocks_of_one_patient_are_allowed_when_declared(tmp_path):
    content = {"grouping": "contiguous blocks", "folds": [{"train": ["c000"], "val": ["c002"]}]}
    splits = read_fixed_splits(fix(dataset_of(["p"] * 3, tmp_path), content))
    assert splits is not None
    assert splits.grouping == "contiguous blocks"


def test_without_a_file_there_are_no_fixed_splits(tmp_path):
    assert read_fixed_splits(dataset_of(["p1"], tmp_path)) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "must hold"),
        ({"folds": []}, "must hold"),
        ({"folds": [{"train": ["c000"]}]}, "must hold"),
        ({"folds": [{"train": ["c000"], "val": [3]}]}, "must hold"),
        ({"folds": [{"train": ["c000"], "val": []}]}, "0 held-out cases"),
        ({"folds": [{"train": ["c000"], "val": ["gone"]}]}, "names 'gone', no labelled case"),
        ({"folds": [{"train": ["c000"], "val": ["c000"]}]}, "names 'c000' twice"),
        ({"folds": [{"train": ["c000", "c000"], "val": ["c002"]}]}, "names 'c000' twice"),
        ({"folds": [{"train": ["c000"], "val": ["c001"]}]}, "fold 0 trains on and holds out patient 'p1'"),
        ({"grouping": "slice", "folds": [{"train": ["c000"], "val": ["c002"]}]}, '"grouping" must be'),
    ],
)
def test_bad_fixed_splits_are_refused(tmp_path, content, message):
    dataset = fix(dataset_of(["p1", "p1", "p2"], tmp_path), content)
    with pytest.raises(SkipSegError, match=f"splits.json.*{message}"):
        make_splits(dataset, 2, seed=0)
