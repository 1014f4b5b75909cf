"""The suites by name, for the help: nothing here waits for PyTorch."""

ABOUT = {
    "s00-scalar-chain": "the chain rule and the + 1",
    "s01-vanish": "gradients vanish along a chain; short skips keep them",
    "s02-frozen": "layers that do not move",
    "s03-gradient-profile": "gradients over the levels of a U-Net",
    "s04-long-kinds": "long skips carry detail",
    "s05-levels": "which level matters, and do the analyses find it",
    "s06-mechanism": "optimisation or detail",
    "s07-depth": "degradation with depth and short skips",
    "s08-landscape": "a smoother loss landscape",
    "s09-lesion": "a residual network as an ensemble",
    "s10-shatter": "gradients as white noise",
    "s11-reuse": "feature reuse and compactness",
    "s12-texture": "the gain by the difficulty of a texture",
    "s13-shift": "robustness to another scanner",
    "s14-erf": "context and detail: the effective receptive field",
    "s15-aa-null": "calibration: the same arm against itself",
    "s16-reference": "real data against a reference (needs --dataset)",
    "s17-drozdzal": "long and short skips as in Drozdzal et al. (needs --dataset)",
}
"""Name to what it tests. ``s01-vanish`` is the module ``s01_vanish``."""
