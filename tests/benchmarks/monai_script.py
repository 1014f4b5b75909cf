"""What one writes with MONAI: load, normalise, SlidingWindowInferer, argmax, save. Arguments: MODEL OUTPUT IMAGE..."""

import sys
from pathlib import Path

import torch
from monai.inferers import SlidingWindowInferer
from monai.transforms import LoadImage, SaveImage

from segmentation.data.preprocessing import Preprocessing
from segmentation.model.storage import load_model


def main(model: Path, output: Path, images: list[Path]) -> None:
    """Segment one scan, given as one file a channel."""
    stored = load_model(model)
    channels = Preprocessing.from_plain(stored.description["preprocessing"]).normalisation
    image = LoadImage(image_only=True, ensure_channel_first=True)([str(path) for path in images])
    for index, channel in enumerate(channels):
        # The window [low, high] is mapped to [0, 1], then standardised.
        unit = (image[index].clamp(channel.low, channel.high) - channel.low) / (channel.high - channel.low)
        image[index] = (unit - channel.mean) / channel.std
    inferer = SlidingWindowInferer(stored.description["patch_size"], sw_batch_size=1, overlap=0.5, mode="gaussian")
    with torch.inference_mode():
        logits = inferer(image[None], stored.network)
    mask = logits[0].argmax(dim=0, keepdim=True)
    save = SaveImage(output, "", ".nii.gz", output_dtype="uint8", resample=False, separate_folder=False)
    save(mask)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), [Path(name) for name in sys.argv[3:]])
