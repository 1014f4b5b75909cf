"""Models of nnU-Net: the same logits under our names, the same scan in front of the network, or a refusal."""

import json
import os
import pickle
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from segmentation import SkipSegError
from segmentation.config import ImportSettings
from segmentation.data.preprocessing import Preprocessing
from segmentation.data.transforms import prepare_image, standardise
from segmentation.inference.foreign import import_nnunet, load_checkpoint
from segmentation.inference.predictor import Predictor
from segmentation.model.storage import load_model
from segmentation.scans import Scan
from tests.benchmarks.nnunet_model import PlainConvUNet, make_plans, network_plan, write_model

STRIDES = [[1, 1, 1], [1, 2, 2], [2, 2, 4]]
KERNELS = [[1, 3, 3], [3, 3, 3], [3, 5, 3]]
PLAN = network_plan([4, 6, 8], STRIDES, KERNELS)
LABELS = {"background": 0, "organ": 1, "lesion": 2}
CT = {"mean": 60.0, "std": 25.0, "percentile_00_5": -40.0, "percentile_99_5": 200.0}
PLANS = make_plans(PLAN, [8, 16, 24], [3.0, 1.0, 0.5], [CT, None])


def random_network(plan=PLAN, channels: int = 2) -> PlainConvUNet:
    """All weights, biases in front of normalisations too, away from where training starts."""
    torch.manual_seed(0)
    network = PlainConvUNet(plan, channels, len(LABELS))
    for weight in network.parameters():
        torch.nn.init.normal_(weight, 0.3, 0.5)
    return network.eval()


def folder(path: Path, plans=PLANS, labels=LABELS, network=None, channels=("CT", "MR"), **changes) -> Path:
    return write_model(path / "theirs", network or random_network(), plans, channels, labels, **changes)


def imported(path: Path, **changes) -> Path:
    return import_nnunet(ImportSettings(folder(path, **changes), path / "ours"))


def changed(key: str, value, **others):
    """The plans with one entry changed: of the network, of the configuration, or of the plans themselves."""
    plans = json.loads(json.dumps(PLANS)) | others
    configuration = plans["configurations"]["3d_fullres"]
    for place in (configuration["architecture"]["arch_kwargs"], configuration, plans):
        if key in place:
            place[key] = value
            return plans
    configuration[key] = value
    return plans


# The same network


@pytest.mark.parametrize("turned", [[0, 1, 2], [2, 0, 1]])
def test_logits_are_those_of_the_network_written_out_in_their_names(tmp_path, turned):
    ours = load_model(imported(tmp_path, plans=changed("transpose_forward", turned))).network
    theirs = random_network()
    x = torch.randn(2, 2, 8, 12, 16)  # z, y, x after their turn
    backward = [turned.index(2 - axis) for axis in range(3)]  # which of those axes are our x, y, z
    there_to_here = [0, 1, *(2 + axis for axis in backward)]
    with torch.no_grad():
        expected = theirs(x).permute(there_to_here)
        found = ours(x.permute(there_to_here).contiguous())
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_pictures_are_imported_too(tmp_path):
    plan = network_plan([4, 6], [[1, 1], [2, 2]], [[3, 3], [3, 3]])
    plans = make_plans(plan, [16, 16], [1.0, 1.0], [None] * 3)
    plans["configurations"]["2d"]["normalization_schemes"] = ["RGBTo01Normalization"] * 3
    theirs = random_network(plan, 3)
    settings = ImportSettings(
        write_model(tmp_path / "theirs", theirs, plans, "RGB", LABELS, mirrored=(0, 1)), tmp_path / "ours"
    )
    stored = load_model(import_nnunet(settings))
    x = torch.rand(1, 3, 14, 18)
    with torch.no_grad():
        torch.testing.assert_close(stored.network(x), theirs(x), rtol=1e-5, atol=1e-5)
    scan = Scan(np.full((3, 4, 5), 51, np.uint8), np.eye(4))
    preprocessing = Preprocessing.from_plain(stored.description["preprocessing"])
    seen = standardise(torch.from_numpy(prepare_image(scan, preprocessing))[None], preprocessing)
    torch.testing.assert_close(seen, torch.full((1, 3, 4, 5), 0.2))


def test_plans_of_old_versions_say_the_same(tmp_path):
    plans = changed("spacing", [3.0, 1.0, 0.5])
    configuration = plans["configurations"]["3d_fullres"]
    del configuration["architecture"]
    configuration |= {"UNet_class_name": "PlainConvUNet", "UNet_base_num_features": 4, "unet_max_num_features": 6}
    configuration |= {"n_conv_per_stage_encoder": [2, 2, 2], "n_conv_per_stage_decoder": [2, 2]}
    configuration |= {"conv_kernel_sizes": KERNELS, "pool_op_kernel_sizes": STRIDES}
    network = random_network(network_plan([4, 6, 6], STRIDES, KERNELS))
    assert load_model(imported(tmp_path, plans=plans, network=network)).network.channels == [4, 6, 6]


def test_a_configuration_inherits_from_another(tmp_path):
    plans = changed("spacing", [3.0, 1.0, 0.5])
    parent = plans["configurations"].pop("3d_fullres")
    plans["configurations"] = {"3d_fullres": {"inherits_from": "base", "spacing": [2.0, 1.0, 0.5]}, "base": parent}
    about = json.loads((imported(tmp_path, plans=plans) / "model.json").read_text())
    assert about["preprocessing"]["spacing_mm"] == [0.5, 1.0, 2.0]
    plans["configurations"]["base"]["inherits_from"] = "3d_fullres"
    with pytest.raises(SkipSegError, match="inherits from itself"):
        imported(tmp_path, plans=plans)


# The same scan in front of it


def test_the_network_sees_what_nnunet_would_show_it(tmp_path):
    about = json.loads((imported(tmp_path) / "model.json").read_text())
    assert about["patch_size"] == [24, 16, 8]
    assert about["labels"] == LABELS
    assert about["channel_names"] == ["CT", "MR"]
    preprocessing = Preprocessing.from_plain(about["preprocessing"])
    assert preprocessing.spacing_mm == (0.5, 1.0, 3.0)
    rng = np.random.default_rng(0)
    array = np.stack([rng.normal(50, 100, (9, 7, 5)), rng.normal(300, 40, (9, 7, 5))]).astype(np.float32)
    array[1, 0, 0, 0] = 900  # at a z-score above our usual limit
    seen = standardise(
        torch.from_numpy(prepare_image(Scan(array, np.diag([0.5, 1, 3, 1])), preprocessing))[None], preprocessing
    )[0].numpy()
    np.testing.assert_allclose(seen[0], (np.clip(array[0], -40, 200) - 60) / 25, atol=1e-5)
    z_scores = (array[1] - array[1].mean()) / array[1].std()
    assert z_scores.max() > 8
    np.testing.assert_allclose(seen[1], z_scores, atol=5e-5)


@pytest.mark.parametrize(("reader", "reoriented"), [("SimpleITKIO", False), ("NibabelIOWithReorient", True)])
def test_axes_are_those_of_the_file_unless_nnunet_turned_them(tmp_path, reader, reoriented):
    plans = changed("spacing", [1.0, 1.0, 1.0], image_reader_writer=reader)
    predictor = Predictor.load(imported(tmp_path, plans=plans), mirror=False)
    array = np.random.default_rng(0).normal(100, 50, (2, 24, 16, 8)).astype(np.float32)
    plain = predictor(Scan(array, np.eye(4)))
    assert not np.array_equal(plain, plain[::-1, ::-1])
    to_left_and_back = np.diag([-1.0, -1.0, 1.0, 1.0])
    as_stored = predictor(Scan(array, to_left_and_back))
    as_it_lies = predictor(Scan(array[:, ::-1, ::-1], to_left_and_back))[::-1, ::-1]
    assert np.array_equal(as_stored, plain) != reoriented
    assert np.array_equal(as_it_lies, plain) == reoriented


def test_mirroring_turns_the_axes_that_training_mirrored(tmp_path):
    about = json.loads((imported(tmp_path, mirrored=(0, 1)) / "model.json").read_text())
    assert (about["flip_axes"], about["mirror"]) == ([1, 2], True)
    about = json.loads((imported(tmp_path / "none", mirrored=None) / "model.json").read_text())
    assert (about["flip_axes"], about["mirror"]) == ([], False)


def test_what_differs_is_written_beside_the_model(tmp_path):
    about = json.loads((imported(tmp_path) / "model.json").read_text())
    assert any("cubic splines" in note for note in about["notes"])
    assert about["imported"]["configuration"] == "3d_fullres"


# Refused


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("network_class_name", "ResidualEncoderUNet", "network is a ResidualEncoderUNet"),
        ("previous_stage", "3d_lowres", "cascade"),
        ("normalization_schemes", ["CTNormalization", "RescaleTo01Normalization"], "RescaleTo01Normalization"),
        ("use_mask_for_norm", [False, True], "voxels that are not zero"),
        ("image_reader_writer", "Tiff3DIO", "read by Tiff3DIO"),
        ("label_manager", "OtherManager", "OtherManager"),
        ("patch_size", [16, 16], "slice by slice"),
        ("spacing", [3.0, 0.0, 1.0], "spacing"),
        ("n_conv_per_stage", [2, 3, 2], "other numbers of convolutions"),
        ("n_conv_per_stage", [2, 2], "3 levels"),
        ("strides", [[2, 2, 2], [2, 2, 2], [2, 2, 2]], "first level shrinks"),
        ("kernel_sizes", [[2, 2, 2]] * 3, "even size"),
        ("norm_op", "torch.nn.BatchNorm3d", "normalisation is BatchNorm3d"),
        ("norm_op_kwargs", {"eps": 1e-3, "affine": True}, "0.001"),
        ("nonlin", "torch.nn.GELU", "non-linearity is GELU"),
        ("nonlin_kwargs", {"negative_slope": 0.2}, "slope 0.2"),
        ("features_per_stage", [4, 6, 9], "do not fit"),
        ("features_per_stage", "wide", "not one that nnU-Net writes"),
        ("conv_op", "torch.nn.Conv2d", "2-D"),
        ("transpose_forward", [0, 1], "not a folder that nnU-Net wrote"),
    ],
)
def test_what_we_cannot_say_is_refused_by_name(tmp_path, key, value, message):
    plans = changed(key, value)
    if key == "network_class_name":
        plans["configurations"]["3d_fullres"]["architecture"][key] = f"somewhere.{value}"
    with pytest.raises(SkipSegError, match=message) as caught:
        imported(tmp_path, plans=plans)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ours").exists()


def test_an_unknown_argument_of_the_network_is_refused(tmp_path):
    plans = changed("n_stages", 3)
    plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]["squeeze_excitation"] = True
    with pytest.raises(SkipSegError, match="squeeze_excitation"):
        imported(tmp_path, plans=plans)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"background": 0, "whole": [1, 2], "core": 2}, "overlap .whole."),
        ({"background": 0, "organ": 1, "lesion": 3}, r"\[0, 1, 3\]"),
    ],
)
def test_labels_that_ours_cannot_be_are_refused(tmp_path, labels, message):
    with pytest.raises(SkipSegError, match=message):
        imported(tmp_path, labels=labels)


def test_an_ignore_label_is_no_class(tmp_path):
    about = json.loads((imported(tmp_path, labels=LABELS | {"ignore": 3}) / "model.json").read_text())
    assert about["labels"] == LABELS


def test_weights_that_are_not_the_plans_are_refused(tmp_path):
    for index, (edit, message) in enumerate(
        [
            (lambda state: state.pop("decoder.transpconvs.0.weight"), "lack decoder.transpconvs.0.weight"),
            (lambda state: state.update({"encoder.stem.conv.weight": torch.zeros(1)}), "hold encoder.stem.conv.weight"),
            (lambda state: state["decoder.seg_layers.1.bias"].fill_(torch.nan), "NaN"),
        ]
    ):
        source = folder(tmp_path / str(index))
        path = source / "fold_0" / "checkpoint_final.pth"
        checkpoint = torch.load(path, weights_only=True)
        edit(checkpoint["network_weights"])
        torch.save(checkpoint, path)
        with pytest.raises(SkipSegError, match=message):
            import_nnunet(ImportSettings(source, tmp_path / "ours"))


def test_other_channels_than_normalisations_are_refused(tmp_path):
    with pytest.raises(SkipSegError, match="channels and their normalisations"):
        imported(tmp_path, channels=["CT"])


def test_a_folder_without_plans_is_told_what_is_missing(tmp_path):
    torch.save(random_network().state_dict(), tmp_path / "model.pt")
    with pytest.raises(SkipSegError, match="how scans were prepared"):
        import_nnunet(ImportSettings(tmp_path, tmp_path / "ours"))
    with pytest.raises(SkipSegError, match=r"fold_3.*does not exist"):
        import_nnunet(replace(ImportSettings(folder(tmp_path), tmp_path / "ours"), fold="3"))


# Nothing is run


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


def test_a_pickle_of_objects_is_refused_before_it_runs(tmp_path):
    sprung = tmp_path / "sprung"
    for index, write in enumerate((torch.save, lambda thing, path: path.write_bytes(pickle.dumps(thing)))):
        path = tmp_path / f"{index}.pth"
        write({"network_weights": {}, "logging": Trap(sprung)}, path)
        with pytest.raises(SkipSegError, match="was not read") as caught:
            load_checkpoint(path)
        assert "\n" not in str(caught.value)
        assert not sprung.exists()


def test_numbers_of_numpy_in_the_training_log_are_let_through(tmp_path):
    log = {"mean_fg_dice": [np.float64(0.5), np.float32(0.25)], "epochs": [np.int64(3)], "done": np.bool_(True)}
    torch.save({"network_weights": {}, "logging": log}, tmp_path / "a.pth")
    assert load_checkpoint(tmp_path / "a.pth")["logging"] == log
    torch.save({"network_weights": {}, "logging": np.zeros(3)}, tmp_path / "b.pth")
    with pytest.raises(SkipSegError, match="_reconstruct"):
        load_checkpoint(tmp_path / "b.pth")


def test_damaged_checkpoints_are_refused(tmp_path):
    torch.save({"network_weights": {}}, tmp_path / "whole.pth")
    content = (tmp_path / "whole.pth").read_bytes()
    for name, damaged in {"cut": content[:200], "empty": b"", "text": b"hello", "torn": content[:-50]}.items():
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(SkipSegError, match=name):
            load_checkpoint(tmp_path / name)
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(SkipSegError, match="network_weights"):
        load_checkpoint(tmp_path / "list.pth")


# nnU-Net itself

THEIR_SIDE = """
import json, sys
import numpy as np, torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans as build
from pathlib import Path
folder = Path(sys.argv[1])
about = json.loads((folder / "plans.json").read_text())["configurations"]["3d_fullres"]["architecture"]
torch.manual_seed(0)
network = build(about["network_class_name"], about["arch_kwargs"], about["_kw_requires_import"], 2, 3,
                deep_supervision=False).eval()
for weight in network.parameters():
    torch.nn.init.normal_(weight, 0.3, 0.5)
path = folder / "fold_0" / "checkpoint_final.pth"
checkpoint = torch.load(path, weights_only=True)
checkpoint["network_weights"] = network.state_dict()
torch.save(checkpoint, path)
x = torch.randn(1, 2, 8, 12, 16)
with torch.no_grad():
    np.savez(folder / "logits.npz", x=x.numpy(), y=network(x).numpy())
"""


@pytest.mark.slow
def test_logits_are_those_of_nnunet_itself(tmp_path):
    """Where ``SKIPSEG_PEERS`` names the environment that the benchmarks build."""
    peers = os.environ.get("SKIPSEG_PEERS")
    if not peers:
        pytest.skip("SKIPSEG_PEERS names no environment with nnU-Net")
    source = folder(tmp_path)
    subprocess.run([Path(peers) / "bin" / "python", "-c", THEIR_SIDE, source], check=True, capture_output=True)
    network = load_model(import_nnunet(ImportSettings(source, tmp_path / "ours"))).network
    saved = np.load(source / "logits.npz")
    with torch.no_grad():
        found = network(torch.from_numpy(saved["x"]).permute(0, 1, 4, 3, 2).contiguous())
    np.testing.assert_allclose(found.numpy(), saved["y"].transpose(0, 1, 4, 3, 2), rtol=1e-5, atol=1e-5)
