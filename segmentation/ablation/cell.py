"""One cell of a study, and the only unit of work: train from a frozen file, segment the held-out cases, score them."""

from pathlib import Path

from segmentation.ablation.ledger import is_done
from segmentation.config import TrainSettings
from segmentation.training.ranks import first_rank
from segmentation.training.train import train


def run_cell(settings: TrainSettings) -> Path:
    """Train, segment, choose the steps of post-processing and score; what stands already is kept.

    The scores are those of the network alone: steps that the held-out cases chose are not applied to them.

    Returns:
        The run folder, with ``predictions/`` and ``evaluation/`` beside the model.
    """
    folder = train(settings)
    if is_done(folder) or first_rank(settings).node:
        return folder  # of several machines the first one scores
    from segmentation.ablation.score import score_run  # brings statistics and figures: training starts a second earlier

    score_run(folder, settings)
    return folder
