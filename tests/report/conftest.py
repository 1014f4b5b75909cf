"""A fake study folder, made at test time: odd sizes, several classes, scores without a value."""

import json
import random
from pathlib import Path

import pytest
from PIL import Image

from segmentation.runs import content_hash, write_csv, write_json, write_text

COLUMNS = [
    *("case", "patient", "class", "dice", "iou", "sensitivity", "precision", "hd95_mm", "assd_mm", "nsd"),
    *("tolerance_mm", "volume_prediction_ml", "volume_reference_ml", "volume_error_ml"),
    *("lesions_reference", "lesions_detected", "lesions_prediction", "lesions_false", "state", "note"),
]

LEVEL = {"concat": 0.72, "add": 0.69, "none": 0.41}


def score_row(case, patient, class_name, dice, **changes):
    """One line of cases.csv; ``dice=None`` is a class that is empty in both masks."""
    if dice is None:
        row = dict.fromkeys(COLUMNS) | {"state": "both_empty", "lesions_reference": 0, "lesions_detected": 0}
    else:
        row = {
            "dice": round(dice, 6),
            "iou": round(dice / (2 - dice), 6),
            "sensitivity": round(min(1, dice + 0.05), 6),
            "precision": round(max(0, dice - 0.03), 6),
            "hd95_mm": round(40 * (1 - dice) + 1.3, 6),
            "assd_mm": round(9 * (1 - dice), 6),
            "nsd": round(dice**2, 6),
            "volume_prediction_ml": 21.7,
            "volume_reference_ml": 23.1,
            "volume_error_ml": -1.4,
            "lesions_reference": 1,
            "lesions_detected": int(dice > 0),
            "lesions_prediction": 2,
            "lesions_false": 1,
            "state": "both" if dice > 0 else "missed",
        }
    return row | {"case": case, "patient": patient, "class": class_name, "tolerance_mm": 2.0} | changes


def write_run(folder, cases, *, condition="concat", seed=0, fold=0, level=None, classes=("tumour",), state="finished"):
    """Write one run folder; ``cases`` maps case to patient."""
    rng = random.Random(f"{fold}-{seed}-{len(cases)}")  # the same luck for every condition: paired
    level = LEVEL.get(condition, 0.6) if level is None else level
    own = random.Random(f"{condition}-{fold}-{seed}")
    rows = [
        score_row(case, patient, c, max(0.0, min(0.97, level + rng.gauss(0, 0.16) + own.gauss(0, 0.04))))
        for case, patient in cases.items()
        for c in classes
    ]
    write_json(
        folder / "run.json",
        {
            "state": state,
            "parameters": 482_113 if condition == "concat" else 449_345,
            "train_cases": ["x"] * 3,
            "val_cases": list(cases),
            "hash": "ab" * 32,
        },
    )
    write_text(
        folder / "config.yaml",
        f"dataset: /secret/data\nout: /secret/{folder.name}\nfold: {fold}\nseed: {seed}\n"
        f"network:\n  long_skip: {json.dumps(condition)}\n  depth: 4\noptim:\n  learning_rate: 0.002\n",
    )
    if state != "finished":
        return
    write_csv(folder / "evaluation" / "cases.csv", rows, COLUMNS)
    curve = [
        {"epoch": e, "step": 25 * e, "train_loss": 1.6 / (1 + e) + own.random() * 0.1, "val_loss": 1.7 / (1 + e) + 0.15}
        | ({"val_dice": level * (1 - 0.8**e)} if e % 2 else {"val_dice": None})
        for e in range(1, 41)
    ]
    write_csv(folder / "metrics.csv", curve, ["epoch", "step", "train_loss", "val_loss", "val_dice"])
    write_json(folder / "timing.json", {"train_seconds": 754.2, "predict_seconds": 25.2, "peak_memory_mb": 913.4})
    overlays = folder / "evaluation" / "overlays"
    overlays.mkdir(parents=True, exist_ok=True)
    for rank, case in enumerate(cases):
        if "/" not in case:
            Image.new("RGB", (49, 67), (30 * fold, 90, 60 + 40 * seed)).save(overlays / f"{rank:02}_{case}.png")


def register_study(folder, study):
    """Write study.json and protocol.json with the hashes that bind them."""
    declared = [[*pair, "any"] for pair in study["contrasts"]]
    protocol = {key: study[key] for key in ("name", "question", "primary_metric", "alpha", "margin")}
    protocol |= {"contrasts": declared}
    write_json(folder / "protocol.json", protocol | {"hash": content_hash(protocol)})
    study = study | {"protocol": content_hash(protocol), "amendments": []}
    write_json(folder / "study.json", study | {"hash": content_hash(study)})


@pytest.fixture
def section_of():
    """A function that cuts a section out of a page by its id."""
    return lambda page, name: page[page.index(f'<section id="{name}"') :].partition("</section>")[0]


@pytest.fixture
def run_writer():
    return write_run


@pytest.fixture(scope="session")
def study_writer():
    """A function that writes a study folder and returns its path."""

    def write(
        folder: Path,
        conditions=("concat", "none"),
        *,
        patients=4,
        folds=4,
        seeds=(0,),
        classes=("tumour",),
        contrasts=(("concat", "none"),),
        skip=(),
        **header,
    ):
        cases = {f"pat_{p + 1}_{scan}": f"pat_{p + 1}" for p in range(patients) for scan in "ab"[: 1 + p % 2]}
        runs = []
        for fold in range(folds):
            held_out = {c: p for c, p in cases.items() if (int(p.removeprefix("pat_")) - 1) % folds == fold}
            for condition in conditions:
                for place, seed in enumerate(seeds):
                    if header.get("rotate_folds") and place % folds != fold:
                        continue
                    name = f"c{conditions.index(condition)}-f{fold}-s{seed}"
                    runs.append({"id": name, "condition": condition, "fold": fold, "seed": seed})
                    if name not in skip:
                        write_run(
                            folder / "runs" / name,
                            held_out,
                            condition=condition,
                            fold=fold,
                            seed=seed,
                            classes=classes,
                        )
        study = {
            "name": "Skip connections on lung tumours",
            "question": "Do concatenated long skip connections help on these scans?",
            "dataset": {
                "name": "lung-ct",
                "hash": "12" * 32,
                "licence": "CC BY-NC 3.0",
                "notice": "Not for commercial use.\nKeep this notice.",
                "citation": "Somebody et al. 2014",
                "patients": patients,
                "cases": len(cases),
                "labels": {"background": 0} | {c: i + 1 for i, c in enumerate(classes)},
            },
            "primary_metric": "dice",
            "alpha": 0.05,
            "margin": 0.02,
            "conditions": {c: {"network": {"long_skip": c}} for c in conditions},
            "contrasts": [list(pair) for pair in contrasts],
            "seeds": list(seeds),
            "folds": list(range(folds)),
            "split": {"method": "leave one patient out", "hash": "cd" * 32},
            "runs": runs,
        }
        folder.mkdir(parents=True, exist_ok=True)
        register_study(folder, study | header)
        return folder

    return write
