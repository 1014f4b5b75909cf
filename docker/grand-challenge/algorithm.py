"""One case of grand-challenge.org: its images in, one mask out.

The platform gives each image as ``/input/images/SLUG/NAME.mha`` (or ``.tif``) and takes the mask from
``/output/images/SLUG/``. ``SKIPSEG_INPUTS`` names the slugs of the model's channels, in the model's order;
``SKIPSEG_OUTPUT`` the slug of the mask; ``SKIPSEG_MODEL`` the folder of one model, or of several to average.
Arguments are passed on to ``skipseg predict``.
"""

import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from segmentation import SkipSegError
from segmentation.cli import main as skipseg
from segmentation.scans import file_ending, find_scans


def run(arguments: Sequence[str], settings: Mapping[str, str], root: Path) -> int:
    """Segment the case.

    Args:
        arguments: Further options of ``skipseg predict``.
        settings: The environment.
        root: Folder that holds ``input`` and ``output``.

    Returns:
        Exit status of ``skipseg predict``.

    Raises:
        SkipSegError: If the inputs, the model or the output are not clear, or an argument would change them.
    """
    images = root / "input" / "images"
    slugs = settings.get("SKIPSEG_INPUTS", "").split() or [the_only_slug(images)]
    if any(word.partition("=")[0] in ("--format", "--output", "--input", "--model") for word in arguments):
        raise SkipSegError("--model, --input, --output and --format are settled here; leave them out")
    output = settings.get("SKIPSEG_OUTPUT", "").strip()
    if not output:
        raise SkipSegError("SKIPSEG_OUTPUT is empty; name the slug of the mask, such as organ-segmentation")
    channels = [the_image(images / slug) for slug in slugs]
    models = [f"--model={folder}" for folder in models_in(Path(settings["SKIPSEG_MODEL"]))]
    with tempfile.TemporaryDirectory() as scratch:
        case, masks = Path(scratch, "case"), Path(scratch, "masks")
        gather(channels, case)
        status = skipseg(["predict", *models, f"--input={case}", f"--output={masks}", *arguments])
        if status == 0:
            target = root / "output" / "images" / output
            target.mkdir(parents=True, exist_ok=True)
            (mask,) = masks.glob("case.*")  # maps that were asked for stand beside it
            shutil.copyfile(mask, target / channels[0].name)
    return status


def folders_of(parent: Path) -> list[Path]:
    """Folders directly below ``parent``, in order."""
    return sorted(entry for entry in parent.iterdir() if entry.is_dir()) if parent.is_dir() else []


def the_only_slug(images: Path) -> str:
    """Name of the only folder of images.

    Raises:
        SkipSegError: If there is none, or several, whose order only the model's maker knows.
    """
    slugs = [folder.name for folder in folders_of(images)]
    if len(slugs) != 1:
        found = ", ".join(slugs) or "no folder"
        raise SkipSegError(f"{images} holds {found}; name the slugs to read, in the model's order, in SKIPSEG_INPUTS")
    return slugs[0]


def the_image(folder: Path) -> Path:
    """The only image of a folder.

    Raises:
        SkipSegError: If it holds none or several.
    """
    files = [file for case in find_scans(folder).values() for file in case]
    if len(files) != 1:
        found = ", ".join(file.name for file in files)
        raise SkipSegError(f"{folder} holds {len(files)} images where one is expected: {found}")
    return files[0]


def models_in(folder: Path) -> list[Path]:
    """Model folders: ``folder`` itself, or those directly below it.

    Raises:
        SkipSegError: If there is none.
    """
    models = [each for each in (folder, *folders_of(folder)) if (each / "model.json").is_file()]
    if not models:
        raise SkipSegError(f"{folder} holds no model.json; upload a tarball of the folder that skipseg train wrote")
    return models


def gather(channels: Sequence[Path], case: Path) -> None:
    """Link the channels of one case side by side, as ``skipseg predict`` looks for them."""
    case.mkdir()
    for number, channel in enumerate(channels):
        (case / f"case_{number:04d}{file_ending(channel)}").symlink_to(channel.resolve())


if __name__ == "__main__":
    try:
        sys.exit(run(sys.argv[1:], os.environ, Path("/")))
    except SkipSegError as error:
        sys.exit(f"skipseg: {error}")
