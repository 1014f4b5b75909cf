"""Every setting of every command: one declaration each, with type, choices, default, meaning and check.

The command line, the YAML files and the run records are all read from these frozen dataclasses, so that a
wrong choice, type or key is refused before anything runs. Standard library only: ``--help`` never waits.
``None`` means "as planned": the value comes from plan.json, where it stands with its reason.
"""

from segmentation.config.checks import require, require_positive
from segmentation.config.network import (
    ADDITIVE,
    WHOLE_DECODER,
    Activation,
    Gradient,
    Init,
    LongSkip,
    NetworkSettings,
    Norm,
    Place,
    Placebo,
    ShortSkip,
)
from segmentation.config.serve import ServeSettings
from segmentation.config.stages import (
    AblateSettings,
    CheckSettings,
    DescribeSettings,
    EvaluateSettings,
    ExportSettings,
    ImportSettings,
    PhantomSettings,
    PlanSettings,
    PredictSettings,
    PrepareSettings,
    ProbeSettings,
    Repair,
    ReportSettings,
    SuiteSettings,
)
from segmentation.config.training import AugmentSettings, DataSettings, OptimSettings, TrainSettings

__all__ = [
    "ADDITIVE",
    "WHOLE_DECODER",
    "AblateSettings",
    "Activation",
    "AugmentSettings",
    "CheckSettings",
    "DataSettings",
    "DescribeSettings",
    "EvaluateSettings",
    "ExportSettings",
    "Gradient",
    "ImportSettings",
    "Init",
    "LongSkip",
    "NetworkSettings",
    "Norm",
    "OptimSettings",
    "PhantomSettings",
    "Place",
    "Placebo",
    "PlanSettings",
    "PredictSettings",
    "PrepareSettings",
    "ProbeSettings",
    "Repair",
    "ReportSettings",
    "ServeSettings",
    "ShortSkip",
    "SuiteSettings",
    "TrainSettings",
    "require",
    "require_positive",
]
