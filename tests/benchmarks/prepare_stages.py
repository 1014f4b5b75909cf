"""What ``skipseg plan`` does, and what ``skipseg train`` does before its first step, in one process.

python -m tests.benchmarks.prepare_stages DATASET CACHE
"""

import sys
from pathlib import Path

from segmentation.config import PlanSettings
from segmentation.data.cache import cache_cases
from segmentation.data.layouts import open_dataset
from segmentation.data.plan import plan_dataset

if __name__ == "__main__":
    folder, cache = map(Path, sys.argv[1:])
    _, plan = plan_dataset(PlanSettings(folder, cache / "plan.json", dims=3, cache=cache))
    dataset = open_dataset(folder)
    cache_cases(dataset, dataset.cases, plan.preprocessing(3, plan.values["data.spacing_mm"], 0), cache)
