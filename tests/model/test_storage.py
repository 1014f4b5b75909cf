import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from segmentation import SkipSegError
from segmentation.config import NetworkSettings
from segmentation.model.folder import read_description, write_description
from segmentation.model.storage import Architecture, load_model, save_model, save_weights
from segmentation.model.unet import UNet
from segmentation.runs import file_hash

SETTINGS = NetworkSettings(depth=2, width=8, long_skip_levels={0: "none"}, short_skip_levels={2: "dense"}, norm="batch")
ARCHITECTURE = Architecture(SETTINGS, 3, 2, 3, [[1, 2, 2], [2, 2, 2]], [[1, 3, 3], [3, 3, 3], [3, 3, 3]])


@pytest.fixture
def network() -> UNet:
    network = ARCHITECTURE.build(seed=5)
    network(torch.randn(2, 2, 7, 9, 8))  # fills the running statistics of the batch normalisation
    return network


@pytest.fixture
def folder(tmp_path: Path, network: UNet) -> Path:
    save_model(tmp_path / "model", ARCHITECTURE, network.state_dict(), {"labels": {"background": 0, "tumour": 1}})
    return tmp_path / "model"


def edit(folder: Path, **changes) -> None:
    """Change model.json and make its checksum agree, as someone who means harm would."""
    write_description(folder, json.loads((folder / "model.json").read_text()) | changes)


def replace_text(folder: Path, old: str, new: str) -> None:
    text = (folder / "model.json").read_text()
    assert text.count(old) == 1
    (folder / "model.json").write_text(text.replace(old, new))


def edit_architecture(folder: Path, **changes) -> None:
    edit(folder, architecture=json.loads((folder / "model.json").read_text())["architecture"] | changes)


def edit_settings(folder: Path, **changes) -> None:
    architecture = json.loads((folder / "model.json").read_text())["architecture"]
    edit_architecture(folder, settings=architecture["settings"] | changes)


def replace_weights(folder: Path, content: bytes) -> None:
    """Swap the weights and make model.json agree, as someone who means harm would."""
    (folder / "model.safetensors").write_bytes(content)
    edit(folder, sha256=file_hash(folder / "model.safetensors"))


def test_a_reloaded_model_gives_equal_bits(folder: Path, network: UNet):
    stored = load_model(folder)
    x = torch.randn(1, 2, 5, 11, 9)
    assert torch.equal(stored.network(x), network.eval()(x))
    loaded, kept = stored.network.state_dict(), network.state_dict()
    assert loaded.keys() == kept.keys()
    assert all(torch.equal(loaded[name], kept[name]) for name in kept)
    assert stored.network.settings == SETTINGS
    assert stored.description["labels"] == {"background": 0, "tumour": 1}
    assert not stored.network.training
    assert not any(parameter.requires_grad for parameter in stored.network.parameters())


def test_an_architecture_survives_json():
    plain = json.loads(json.dumps(ARCHITECTURE.to_plain()))
    assert Architecture.from_plain(plain) == ARCHITECTURE


RICH = {
    "gates": {"long_skip": "gated", "short_skip": "gated_add", "long_skip_scale_learned": True},
    "levels": {"long_skip_levels": {0: "se", 1: "respath"}, "convs_levels": {0: 1, 2: 3}, "activation": "prelu"},
    "nested": {"long_skip": "nested", "short_skip": "scaled_add", "short_skip_scale_learned": True},
    "fullscale": {"long_skip": "fullscale", "short_skip_where": ["encoder"], "order": "norm-act-conv"},
    "permuted": {"long_skip_permute": [1, 0], "input_skip": True, "widths": [6, 5, 7], "block": "bottleneck"},
    "scalar": {"long_skip": "gated_scalar", "upsample": "linear", "downsample": "first_conv"},
}


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", RICH)
def test_every_setting_survives_the_disk(tmp_path: Path, name: str, dims: int):
    strides, kernels = [[1, 2, 2][-dims:], [2] * dims], [[1, 3, 3][-dims:], [3] * dims, [3] * dims]
    settings = NetworkSettings(**({"depth": 2, "width": 8} | RICH[name]))
    architecture = Architecture(settings, dims, 2, 3, strides, kernels)
    network = architecture.build(seed=5).eval()
    save_model(tmp_path, architecture, network.state_dict(), {})
    stored = load_model(tmp_path).network
    assert stored.settings == settings
    x = torch.randn(1, 2, *(5, 11, 9)[:dims])
    assert torch.equal(stored(x), network(x))


def test_equal_weights_give_equal_bytes(tmp_path: Path):
    weights = ARCHITECTURE.build().state_dict()
    save_weights(tmp_path / "a.safetensors", weights)
    save_weights(tmp_path / "b.safetensors", dict(reversed(weights.items())))
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


class Bomb:
    def __reduce__(self):
        return (Path.touch, (Path("exploded"),))


DAMAGE = {
    "no model.json": (lambda folder: (folder / "model.json").unlink(), "holds no model.json"),
    "json cut": (lambda folder: (folder / "model.json").write_text('{"format": 1,'), "not valid JSON"),
    "foreign json": (lambda folder: (folder / "model.json").write_text('{"weights": 3}'), "readable model"),
    "json list": (lambda folder: (folder / "model.json").write_text("[1, 2]"), "readable model"),
    "number changed": (lambda folder: replace_text(folder, '"tumour": 1', '"tumour": 0'), "damaged or changed"),
    "number lost": (lambda folder: replace_text(folder, '"tumour": 1', '"tumour": NaN'), "readable model"),
    "newer": (lambda folder: edit(folder, format=99), "newer SkipSeg"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "is missing"),
    "other weights": (lambda folder: (folder / "model.safetensors").write_bytes(b"x"), "not the file"),
    "garbage": (lambda folder: replace_weights(folder, b"garbage" * 99), "readable model"),
    "empty": (lambda folder: replace_weights(folder, b""), "readable model"),
    "pickle": (lambda folder: replace_weights(folder, pickle.dumps(Bomb())), "readable model"),
    "other network": (lambda folder: replace_weights(folder, save({"a": torch.zeros(3)})), "readable model"),
    "other width": (lambda folder: edit_settings(folder, width=4), "readable model"),
    "no depth": (lambda folder: edit_settings(folder, depth=None), "needs depth and width"),
    "unknown skip": (lambda folder: edit_settings(folder, long_skip="gatd"), "gatd"),
    "unknown setting": (lambda folder: edit_settings(folder, colour=3), "colour"),
    "level in words": (lambda folder: edit_settings(folder, long_skip_levels={"top": "none"}), "long_skip_levels"),
    "level out of range": (lambda folder: edit_settings(folder, long_skip_levels={"7": "none"}), "level"),
    "five axes": (lambda folder: edit_architecture(folder, dims=5), "readable model"),
    "unknown entry": (lambda folder: edit_architecture(folder, colour=3), "readable model"),
    "too few strides": (lambda folder: edit_architecture(folder, strides=[[2, 2, 2]]), "readable model"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_or_foreign_model_is_refused_in_one_line(folder: Path, monkeypatch, damage: str):
    monkeypatch.chdir(folder)
    spoil, message = DAMAGE[damage]
    spoil(folder)
    with pytest.raises(SkipSegError, match=message) as refused:
        load_model(folder)
    assert "\n" not in str(refused.value)
    assert not Path("exploded").exists()


def test_a_description_is_read_without_pytorch(folder: Path):
    program = (
        "import sys; from pathlib import Path; from segmentation.model.folder import read_description\n"
        f"print(read_description(Path({str(folder)!r}))['labels'], 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "{'background': 0, 'tumour': 1} False\n"


def test_a_model_from_before_the_checksum_is_read(folder: Path):
    description = json.loads((folder / "model.json").read_text())
    del description["checksum"]
    description["format"] = 1
    (folder / "model.json").write_text(json.dumps(description))
    assert read_description(folder) == description


def test_a_checksum_cannot_be_taken_away(folder: Path):
    description = json.loads((folder / "model.json").read_text())
    del description["checksum"]
    (folder / "model.json").write_text(json.dumps(description))
    with pytest.raises(SkipSegError, match="readable model"):
        read_description(folder)


def test_a_description_can_be_written_again(folder: Path):
    write_description(folder, {**read_description(folder), "note": "checked by hand"})
    assert read_description(folder)["note"] == "checked by hand"
