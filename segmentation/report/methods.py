"""The methods section of a paper about a study, written from its settings: no number in it is typed by hand."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from segmentation.plain import flatten
from segmentation.report.settings import in_yaml
from segmentation.report.tables import MEASURE_NAMES, parameters
from segmentation.terminal import counted

_WORDS = {
    "optim.loss": {
        "dice_ce": "the sum of soft Dice loss and cross-entropy",
        "dice": "soft Dice loss",
        "ce": "cross-entropy",
        "focal": "focal loss",
        "tversky": "Tversky loss",
        "dice_focal": "the sum of soft Dice and focal loss",
    },
    "optim.optimizer": {"adamw": "AdamW", "sgd": "SGD with Nesterov momentum 0.99"},
    "network.downsample": {
        "maxpool": "max pooling",
        "avgpool": "average pooling",
        "stride": "strided convolutions",
        "first_conv": "a stride in the first convolution of a block",
        "decimate": "every second voxel",
    },
    "network.upsample": {
        "transpose": "transposed convolutions",
        "nearest": "nearest-neighbour interpolation",
        "linear": "linear interpolation",
    },
    "network.activation": {"leaky_relu": "leaky ReLU", "relu": "ReLU"},
    "optim.schedule": {
        "cosine": "fell to zero by half a cosine",
        "poly": "fell to zero by (1 - t)^0.9",
        "constant": "then stayed constant",
    },
}


def methods_paragraphs(results: Mapping[str, Any]) -> list[str]:
    """Describe data, networks, training, evaluation, statistics and software of a study, ready to paste.

    What the conditions do not share is named as differing and left out of the description. A study before its
    first finished run gives what it has declared.

    Args:
        results: Content of results.json, but for this section.

    Returns:
        One text for each paragraph.
    """
    parts = (_data, _networks, _training, _evaluation, _statistics, _software)
    texts = [" ".join(sentence for sentence in part(results) if sentence) for part in parts]
    return [text for text in texts if text]


def _data(results: Mapping[str, Any]) -> Iterator[str]:
    """Dataset and split."""
    data = results["dataset"]
    if data.get("name"):
        labels = ", ".join(name for name, value in data.get("labels", {}).items() if value not in (0, [0]))
        facts = [f"{data[key]} {key}" for key in ("cases", "patients") if key in data]
        facts += [f"labelled {labels}"] if labels else []
        facts += [f"licence {data['licence']}"] if data.get("licence") else []
        yield f"Data: {', '.join([data['name'], *facts])}."
    split = results["split"].get("method")
    folds, seeds = len(results["folds"]), len(results["seeds"])
    if split:
        rotated = "each seed with one fold" if results["rotate_folds"] else "each fold with every seed"
        per = (
            f"{counted(folds, 'fold')} and {counted(seeds, 'seed')} were run, {rotated}"
            if folds * seeds > 1
            else "one run"
        )
        yield f"Split: {split}; {per}."


def _networks(results: Mapping[str, Any]) -> Iterator[str]:
    """Conditions and their networks."""
    shared, differing = results["settings"]["shared"], results["settings"]["differing"]
    conditions = results["conditions"]
    depth, dims = shared.get("network.depth"), shared.get("data.dims")
    size = f" of depth {depth}" if depth is not None else ""
    kind = f"{dims}-D U-Nets{size}" if dims else f"U-Nets{size}"
    listed = "; ".join(_condition(name, condition) for name, condition in conditions.items())
    if len(conditions) > 1:
        yield f"{len(conditions)} conditions were compared, all {kind}: {listed}."
        yield f"They differ in {', '.join(differing)} and share all other settings." if differing else ""
    else:
        yield f"The network was a {kind.replace('U-Nets', 'U-Net')}: {listed}."
    facts = [
        ("network.convs", "{} convolutions in each block"),
        ("network.norm", "{} normalisation"),
        ("network.activation", "{} activation"),
        ("network.downsample", "{} to halve the resolution"),
        ("network.upsample", "{} to double it"),
    ]
    known = [words.format(_in_words(key, shared[key])) for key, words in facts if shared.get(key) not in (None, "none")]
    yield f"Networks had {', '.join(known)}." if known else ""


def _condition(name: str, condition: Mapping[str, Any]) -> str:
    """A condition with what it was declared as, its parameters and its multiplications."""
    facts = [f"{key} {in_yaml(value)}" for key, value in flatten(condition["settings"])]
    if condition["parameters"]:
        facts.append(f"{parameters(condition['parameters'])} parameters")
    if (condition["budget"] or {}).get("macs"):
        facts.append(f"{parameters([condition['budget']['macs']])} multiply-accumulates a patch")
    return f"{name} ({', '.join(facts)})" if facts else name


def _training(results: Mapping[str, Any]) -> Iterator[str]:
    """Patches, optimiser, augmentation."""
    say = _Sentences(results["settings"]["shared"])
    if results["length_unit"] == "mm":
        yield say("Scans were resampled to {} mm.", "data.spacing_mm")
    elif any(step != 1 for step in say.settings.get("data.spacing_mm") or ()):
        yield say("Pictures were resampled to pixels of {} original ones.", "data.spacing_mm")
    yield say("Batches had {} patches of {} voxels.", "data.batch_size", "data.patch_size")
    yield say("Of cases with foreground, a share of {} of the patches was centred on it.", "data.foreground_share")
    at_most = "at most " if say.settings.get("patience") else ""
    yield say(f"Each network was trained for {at_most}{{}} epochs of {{}} steps.", "epochs", "steps_per_epoch")
    yield say("The loss was {}.", "optim.loss")
    yield say("The optimiser was {} with weight decay {}.", "optim.optimizer", "optim.weight_decay")
    schedule = ("optim.learning_rate", "optim.warmup_share", "optim.schedule")
    yield say("The learning rate rose linearly to {} over {} of the steps and {}.", *schedule)
    if say.settings.get("optim.clip_norm"):
        yield say("Gradients were clipped at a norm of {}.", "optim.clip_norm")
    if say.settings.get("optim.ema_decay"):
        yield say("Validated and kept was the moving average of the weights with decay {} a step.", "optim.ema_decay")
    if say.settings.get("augment.strength") == 1:
        ranges = ("augment.rotate_degrees", "augment.scale")
        yield say(
            "Patches were rotated by up to {} degrees and zoomed by up to {}, among other augmentations.", *ranges
        )
    elif say.settings.get("augment.strength") is not None:
        yield say("Augmentation had a strength of {}.", "augment.strength")


def _evaluation(results: Mapping[str, Any]) -> Iterator[str]:
    """Prediction and scores."""
    shared = results["settings"]["shared"]
    if shared.get("select"):
        epoch = "last epoch" if shared["select"] == "last" else "epoch with the best held-out Dice"
        yield f"The weights of the {epoch} were evaluated."
    if shared.get("mirror"):
        yield "Predictions were averaged over mirrored copies."
    if shared.get("keep_largest"):
        yield "Only the largest connected component of each class was kept."
    measure = MEASURE_NAMES[results["primary_metric"]]
    yield f"The primary measure was {measure}, averaged over classes of a case, cases of a patient, and seeds."
    yield results["policy"]


def _statistics(results: Mapping[str, Any]) -> Iterator[str]:
    """How contrasts were decided."""
    declared = [each for each in results["contrasts"] if each["declared"]]
    if not declared:
        return
    pairs = ", ".join(f"{each['a']} minus {each['b']}" for each in declared)
    yield f"Declared before the first run had finished: {pairs}."
    yield f"The error rate was {results['alpha']:g} and the margin of equivalence {results['margin']:g}."
    if methods := results["protocol"].get("methods"):
        yield f"Registered were {'; '.join(f'{name}: {words}' for name, words in methods.items())}."
    for each in declared:
        if each["n"]:
            yield f"{each['a']} minus {each['b']}: {each['method']}."


def _software(results: Mapping[str, Any]) -> Iterator[str]:
    """Versions and hashes."""
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    yield f"Software: {versions}." if versions else ""
    hashes = [
        ("data", results["dataset"].get("hash")),
        ("protocol", results["protocol"].get("hash")),
        ("study", results["hash"]),
    ]
    known = [f"{name} {digest}" for name, digest in hashes if digest]
    yield f"SHA-256: {', '.join(known)}." if known else ""


class _Sentences:
    """Sentences about settings; one whose settings are not shared by all conditions is left out."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = settings

    def __call__(self, sentence: str, *keys: str) -> str:
        """Fill in the settings ``keys`` in words."""
        values = [self.settings.get(key) for key in keys]
        return "" if None in values else sentence.format(*map(_in_words, keys, values))


def _in_words(key: str, value: Any) -> str:
    """A setting as it reads in a sentence.

    Examples:
        >>> _in_words("data.patch_size", [40, 56]), _in_words("optim.warmup_share", 0.05), _in_words("epochs", 8)
        ('40 x 56', '5 %', '8')
    """
    if key in ("optim.warmup_share", "data.foreground_share", "augment.scale"):
        return f"{100 * value:g} %"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return " x ".join(f"{each:g}" for each in value)
    return _WORDS.get(key, {}).get(value, str(value))
