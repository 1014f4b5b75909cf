"""Steps are chosen where held-out patients agree, and what they gain is what applying them gains."""

import numpy as np
import pytest
from scipy import ndimage

from segmentation.inference.choose import FRACTIONS, HeldOut, choose_steps
from segmentation.inference.postprocess import Step, apply_steps
from segmentation.metrics import dice_per_class

LABELS = {"organ": 1, "lesion": 2}


def organ(size=20):
    """A square of 100 pixels."""
    label_map = np.zeros((size, size), np.uint8)
    label_map[2:12, 2:12] = 1
    return label_map


def changed(label_map, *changes):
    result = label_map.copy()
    for place, value in changes:
        result[place] = value
    return result


def held_out(*pairs, spacing_mm=(1.0, 1.0), patients="abcdefgh"):
    return [
        HeldOut(patient, lambda maps=(prediction, reference, spacing_mm): maps)
        for patient, (prediction, reference) in zip(patients, pairs, strict=False)
    ]


def chosen(cases, labels=LABELS, ignore_label=None):
    found = choose_steps(cases, labels, ignore_label)
    return [Step.from_plain(plain) for plain in found["steps"]], found


CRUMB = (slice(15, 17), slice(15, 17))
HOLE = (slice(5, 7), slice(5, 7))


def test_crumbs_choose_the_largest_component_and_the_gain_is_worked_out_by_hand():
    steps, found = chosen(held_out(*[(changed(organ(), (CRUMB, 1)), organ())] * 3))
    assert steps == [Step("keep_largest", 1)]
    before = 200 / 204
    assert found["dice"] == round(before, 6)
    assert found["dice_with_steps"] == 1
    assert found["gain"] == round(1 - before, 6)
    assert (found["cases"], found["patients"]) == (3, 3)
    assert found["tried"] == 8, "two classes, of which one occurs, and four sizes of it"
    assert found["candidates"] == [
        {**steps[0].to_plain(), "gain": round(1 - before, 6), "raised": 3, "lowered": 0, "taken": True}
    ], "after it nothing else changes anything"


def test_two_organs_choose_a_least_size_below_what_is_annotated():
    pair = changed(organ(), ((slice(14, 18), slice(2, 6)), 1))
    crumbs = changed(pair, ((0, 18), 1), ((slice(10, 12), slice(15, 17)), 1))
    steps, found = chosen(held_out(*[(crumbs, pair)] * 4, spacing_mm=(2.0, 0.5)))
    assert steps == [Step("remove_small", 1, 8.0)], "half of the 16 mm3 of the small organ: the first that removes both"
    tried = [(c["kind"], c["minimum_mm3"], c["raised"], c["lowered"]) for c in found["candidates"]]
    assert tried[0] == ("keep_largest", 0.0, 0, 4)
    assert tried[1:] == [("remove_small", 16 * f, 4, 0) for f in FRACTIONS]


def test_nothing_as_large_as_the_smallest_annotated_component_goes():
    reference = changed(organ(), ((slice(14, 16), slice(2, 4)), 1))
    wrong = changed(reference, ((slice(14, 16), slice(15, 17)), 1))
    steps, found = chosen(held_out(*[(wrong, reference)] * 5), {"organ": 1})
    assert steps == []
    assert [c["kind"] for c in found["candidates"]] == ["keep_largest"]


def test_holes_are_filled_after_what_lies_in_them_is_removed():
    reference = changed(organ(30), ((slice(20, 24), slice(20, 24)), 2))
    prediction = changed(reference, (HOLE, 2))
    steps, found = chosen(held_out(*[(prediction, reference)] * 3))
    assert steps == [Step("keep_largest", 2), Step("fill_holes", 1)]
    assert found["dice_with_steps"] == 1


@pytest.mark.parametrize(("helped", "harmed", "taken"), [(3, 0, True), (2, 0, False), (4, 1, False), (5, 1, True)])
def test_chance_among_few_patients_chooses_nothing(helped, harmed, taken):
    crumbs, dotted = (changed(organ(), (CRUMB, 1)), organ()), changed(organ(), ((18, 18), 1))
    steps, found = chosen(held_out(*[crumbs] * helped, *[(dotted, dotted)] * harmed), {"organ": 1})
    first = found["candidates"][0]
    assert (first["raised"], first["lowered"]) == (helped, harmed)
    assert first["gain"] > 0.01
    assert steps == ([Step("keep_largest", 1)] if taken else [])


def test_a_rise_below_the_margin_is_not_taken():
    large = np.zeros((60, 60), np.uint8)
    large[:40, :40] = 1
    steps, found = chosen(held_out(*[(changed(large, ((50, 50), 1)), large)] * 6), {"organ": 1})
    assert steps == []
    assert found["candidates"][0]["gain"] == pytest.approx(1 - 3200 / 3201, abs=1e-6)
    assert found["candidates"][0]["raised"] == 6


def test_a_false_alarm_that_goes_counts_as_risen():
    nothing = np.zeros_like(organ())
    alarm = changed(nothing, ((3, 3), 1))
    blurred = (changed(organ(), ((slice(2, 4), slice(2, 12)), 0)), organ())
    steps, found = chosen(held_out(blurred, (alarm, nothing), (alarm, nothing), (alarm, nothing)), {"organ": 1})
    assert steps == [Step("remove_small", 1, 12.5)], "the first that removes single pixels"
    assert found["dice"] == round(160 / 180 / 4, 6)
    assert found["dice_with_steps"] == round(160 / 180, 6), "patients rightly without the class have no score"


def test_cases_of_one_patient_count_once():
    crumbs = [(changed(organ(), (CRUMB, 1)), organ())] * 6
    steps, found = chosen(held_out(*crumbs, patients="aaabbb"))
    assert steps == []
    assert (found["cases"], found["patients"], found["candidates"][0]["raised"]) == (6, 2, 2)


def test_voxels_to_ignore_neither_help_nor_harm():
    reference = changed(organ(), (CRUMB, 9))
    steps, found = chosen(held_out(*[(changed(organ(), (CRUMB, 1)), reference)] * 3), ignore_label=9)
    assert steps == []
    assert found["dice"] == 1
    hole = changed(organ(), (HOLE, 9))
    steps, _ = chosen(held_out(*[(changed(organ(), (HOLE, 0)), hole)] * 3), ignore_label=9)
    assert steps == []


def test_without_scores_there_is_nothing_to_choose():
    empty = np.zeros((5, 5), np.uint8)
    for cases in ([], held_out((empty, empty))):
        found = choose_steps(cases, LABELS)
        assert (found["steps"], found["dice"], found["gain"], found["candidates"]) == ([], None, None, [])


@pytest.mark.parametrize("shape", [(50, 43), (17, 15, 13)])
@pytest.mark.parametrize("seed", range(3))
def test_the_gain_is_that_of_applying_the_steps(shape, seed):
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij"))
    cases, patients = [], "aabcdefg"
    for patient in patients:
        distance = np.linalg.norm(grid - rng.uniform(-0.2, 0.2, (len(shape),) + (1,) * len(shape)), axis=0)
        reference = (distance < 0.7).astype(np.uint8) + (distance < 0.3)
        noise = ndimage.gaussian_filter(rng.normal(size=shape), 0.7)
        wrong = np.abs(noise) > np.quantile(np.abs(noise), 0.93)
        prediction = np.where(wrong, rng.permutation(reference.ravel()).reshape(shape), reference).astype(np.uint8)
        reference = np.where(rng.random(shape) < 0.01, 7, reference).astype(np.uint8)
        cases += held_out((prediction.T, reference.T), spacing_mm=(1.5,) * len(shape), patients=patient)
    steps, found = chosen(cases, ignore_label=7)
    assert steps, "there is something to mend"

    def mean_dice(apply):
        scores = {patient: [] for patient in patients}
        for case in cases:
            prediction, reference, spacing_mm = case.read()
            mended = apply_steps(prediction.copy(), apply, spacing_mm)
            scores[case.patient].append(np.nanmean(dice_per_class(mended, reference, 3, ignore=7)[1:]))
        return np.mean([np.mean(values) for values in scores.values()])

    assert found["dice"] == pytest.approx(mean_dice([]), abs=1e-6)
    assert found["dice_with_steps"] == pytest.approx(mean_dice(steps), abs=1e-6)
