"""The methods section: every number comes from the settings, what differs is not claimed for all."""

import yaml

from segmentation.report.methods import methods_paragraphs
from segmentation.report.page import write_report
from segmentation.report.read import read_study
from segmentation.report.results import build_results

SETTINGS = {
    "fold": 0,
    "seed": 0,
    "epochs": 17,
    "steps_per_epoch": 23,
    "network": {"long_skip": "concat", "depth": 4, "convs": 2, "norm": "instance", "activation": "leaky_relu"},
    "data": {
        "dims": 3, "spacing_mm": [4.0, 4.0, 2.5], "patch_size": [40, 48, 16], "batch_size": 3, "foreground_share": 0.5,
    },
    "optim": {
        "loss": "dice_ce", "optimizer": "adamw", "learning_rate": 0.002, "warmup_share": 0.05, "schedule": "cosine",
        "weight_decay": 0.0001, "clip_norm": 12.0, "ema_decay": 0.99,
    },
    "augment": {"strength": 1.0, "rotate_degrees": 20.0, "scale": 0.2},
    "select": "last",
    "mirror": True,
}  # fmt: skip


def described(folder, **changes):
    """The section of a study whose runs have these settings; ``changes`` are of the second condition only."""
    for path in sorted(folder.glob("runs/*/config.yaml")):
        own = {**SETTINGS, **(changes if path.parent.name.startswith("c1") else {})}
        path.write_text(yaml.safe_dump(own))
    return " ".join(build_results(read_study(folder))["methods"])


def test_the_section_says_what_the_settings_say(study_writer, tmp_path):
    text = described(study_writer(tmp_path, folds=2, seeds=(0, 1)))
    for wanted in (
        "Data: lung-ct, 6 cases, 4 patients, labelled tumour, licence CC BY-NC 3.0.",
        "Split: leave one patient out; 2 folds and 2 seeds were run, each fold with every seed.",
        "2 conditions were compared, all 3-D U-Nets of depth 4: concat (network.long_skip concat, 482 k parameters)",
        "Scans were resampled to 4 x 4 x 2.5 mm.",
        "Batches had 3 patches of 40 x 48 x 16 voxels.",
        "trained for 17 epochs of 23 steps",
        "the sum of soft Dice loss and cross-entropy",
        "AdamW with weight decay 0.0001",
        "rose linearly to 0.002 over 5 % of the steps and fell to zero by half a cosine.",
        "clipped at a norm of 12.0",
        "decay 0.99",
        "The weights of the last epoch were evaluated. Predictions were averaged over mirrored copies.",
        "Declared before the first run had finished: concat minus none.",
        "study " + read_study(tmp_path).header["hash"],
    ):
        assert wanted in text, wanted


def test_what_conditions_do_not_share_is_not_claimed_for_all(study_writer, tmp_path):
    text = described(study_writer(tmp_path, folds=1), epochs=99, mirror=False)
    assert "epochs of" not in text
    assert "mirrored" not in text
    assert "They differ in epochs, mirror and share all other settings." in text


def test_a_study_before_its_first_run_is_described_by_what_it_declared(study_writer, tmp_path):
    study = read_study(study_writer(tmp_path, folds=1, skip=("c0-f0-s0", "c1-f0-s0")))
    text = " ".join(methods_paragraphs(build_results(study)))
    assert "2 conditions were compared, all U-Nets: concat (network.long_skip concat); none" in text
    assert "None" not in text
    assert "Software" not in text


def test_a_single_run_is_described_without_contrasts(run_writer, tmp_path):
    run_writer(tmp_path / "run", {"case_7": "p7"})
    text = " ".join(build_results(read_study(tmp_path / "run"))["methods"])
    assert "The network was a U-Net of depth 4: run (482 k parameters)." in text
    assert "Declared" not in text


def test_the_page_has_the_text_and_a_button_that_copies_it(study_writer, tmp_path):
    page = write_report(study_writer(tmp_path, folds=1)).read_text()
    assert '<button type="button" data-copy="methods-text" hidden>' in page
    assert "2 conditions were compared, all U-Nets of depth 4" in page[page.index('id="methods-text"') :]
