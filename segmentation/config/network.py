"""Settings of the network."""

from dataclasses import dataclass, field
from typing import Literal

from segmentation import SkipSegError
from segmentation.config.checks import require, require_positive

LongSkip = Literal[
    "concat",
    "add",
    "mean",
    "mul",
    "max",
    "gated",
    "gated_scalar",
    "se",
    "respath",
    "nested",
    "fullscale",
    "none",
]
ShortSkip = Literal["none", "add", "scaled_add", "gated_add", "dense"]
Gradient = Literal["both", "forward_only", "backward_only"]
Placebo = Literal["none", "zeros", "dup", "noise", "shuffle"]
Place = Literal["encoder", "bottleneck", "decoder"]
Activation = Literal["relu", "leaky_relu", "prelu", "elu", "gelu", "silu", "tanh", "sigmoid", "identity"]
Norm = Literal["none", "batch", "instance", "group", "layer"]
Init = Literal["he", "xavier", "orthogonal", "torch"]
ADDITIVE: tuple[ShortSkip, ...] = ("add", "scaled_add", "gated_add")
"""Short skips whose two maps must have one shape."""
WHOLE_DECODER = ("nested", "fullscale")
"""Long skips that wire the whole decoder, so that a single level cannot have them alone."""


@dataclass(frozen=True)
class NetworkSettings:
    """The U-Net. Level 0 is the finest; a network of depth D has long skips at levels 0 to D-1."""

    preset: str | None = None
    """Named architecture that the other settings depart from; `skipseg describe --help` lists them."""
    long_skip: LongSkip = "concat"
    """Long skip connection from encoder to decoder: concat (U-Net), add (LinkNet), mean, mul, max, gated (Attention
    U-Net), gated_scalar, se, respath (MultiResUNet), nested (U-Net++), fullscale (U-Net 3+), none (an autoencoder)."""
    long_skip_levels: dict[int, LongSkip] = field(default_factory=dict)
    """Levels that depart from long_skip, such as {0: none}."""
    long_skip_scale: float = 1.0
    """Factor on the encoder map; where it starts if it is learnt."""
    long_skip_scale_decay: float = 1.0
    """The factor of level i is long_skip_scale times this to the power i (ScaleLong)."""
    long_skip_scale_learned: bool = False
    """Learn one factor a level."""
    long_skip_gradient: Gradient = "both"
    """What passes: value and gradient, the value alone (forward_only), or the gradient alone (backward_only)."""
    long_skip_placebo: Placebo = "none"
    """Stand-in for the encoder map, at equal parameters: zeros, dup (the decoder map again), noise of the same mean
    and deviation, shuffle (the encoder map of another image of the batch; in prediction its own, rolled by half)."""
    long_skip_dropout: float = 0.0
    """Share of the encoder map dropped in training, in [0, 1)."""
    long_skip_dropout_mode: Literal["element", "channel", "path"] = "path"
    """What is dropped at a time: single values, channels, or the whole map of an image."""
    long_skip_permute: list[int] | None = None
    """Encoder level that each decoder level reads, such as [1, 0, 2]; resized and projected by a 1x1 convolution."""
    long_skip_norm: Literal["none", "instance"] = "none"
    """Normalise the encoder map before it is joined."""
    input_skip: bool = False
    """Also add what the first convolution makes of the image to the last decoder map (Drozdzal et al.). It is no
    long_skip: long_skip none leaves it, and so do probes."""
    short_skip: ShortSkip = "none"
    """Short skip connection inside a block: none, add (ResNet: y = x + F(x)), scaled_add (x + a F(x)), gated_add
    (highway), dense (DenseNet)."""
    short_skip_levels: dict[int, ShortSkip] = field(default_factory=dict)
    """Levels that depart from short_skip; level D is the bottleneck."""
    short_skip_where: list[Place] = field(default_factory=lambda: ["encoder", "bottleneck", "decoder"])
    """Parts of the network whose blocks have short skips."""
    short_skip_every: int = 2
    """Convolutions that an additive short skip spans."""
    short_skip_scale: float = 1.0
    """Factor a of scaled_add; where it starts if it is learnt."""
    short_skip_scale_learned: bool = False
    """Learn the factor of scaled_add, one a branch."""
    depth: int | None = None
    """Number of times the resolution is halved."""
    width: int | None = None
    """Channels at level 0; each level doubles them."""
    max_width: int = 320
    """Most channels at any level."""
    widths: list[int] | None = None
    """Channels of each of the depth + 1 levels, instead of width and max_width."""
    convs: int = 2
    """Convolutions in each block; with bottleneck blocks, residual branches."""
    convs_levels: dict[int, int] = field(default_factory=dict)
    """Levels that depart from convs; level D is the bottleneck."""
    block: Literal["basic", "bottleneck"] = "basic"
    """Block of 3x3 convolutions, or branches 1x1, 3x3, 1x1 with a quarter of the channels inside (He et al.)."""
    order: Literal["conv-norm-act", "norm-act-conv"] = "conv-norm-act"
    """Order inside a convolution unit; norm-act-conv is pre-activation."""
    kernel: int | None = None
    """Size of the convolutions along every axis, odd; otherwise as planned, 3."""
    activation: Activation = "leaky_relu"
    """Non-linearity after each convolution."""
    norm: Norm = "instance"
    """Normalisation after each convolution."""
    init: Init = "he"
    """How weights are drawn: he, xavier, orthogonal, or torch (PyTorch's defaults)."""
    gain: float = 1.0
    """Factor on the initial convolution weights."""
    zero_last: bool = False
    """Start every residual branch at zero, so that a block starts as the identity (Fixup, SkipInit)."""
    downsample: Literal["maxpool", "avgpool", "stride", "first_conv", "decimate"] = "maxpool"
    """How the encoder halves the resolution: pooling, a strided convolution of its own, a stride in the first
    convolution of the next block (nnU-Net), or every second voxel."""
    upsample: Literal["transpose", "nearest", "linear"] = "transpose"
    """How the decoder doubles it: transposed convolution, or interpolation and then a convolution unit."""
    dropout: float = 0.0
    """Share of bottleneck channels dropped in training, in [0, 1)."""
    deep_supervision: bool = False
    """Also train outputs of the coarser decoder levels, but for the coarsest."""
    budget_match: Literal["none", "params", "macs"] = "none"
    """Solve widths so that parameters or multiplications equal those of the reference: in a study its first
    condition, else the same network with concat and without short skips."""

    def __post_init__(self) -> None:
        """Check ranges."""
        require_positive(self, "depth", "width", "max_width", "convs", "short_skip_every", "kernel", "gain")
        for name in ("dropout", "long_skip_dropout"):
            require(0 <= getattr(self, name) < 1, f"{name} must be in [0, 1), got {getattr(self, name)}")
        require(self.kernel is None or self.kernel % 2 == 1, f"kernel must be odd, got {self.kernel}")
        require(all(c > 0 for c in self.convs_levels.values()), f"convs_levels must be above 0: {self.convs_levels}")
        require(self.widths is None or all(w > 0 for w in self.widths), f"widths must be above 0, got {self.widths}")
        whole = WHOLE_DECODER
        mixed = any(kind in whole for kind in self.long_skip_levels.values()) or (
            self.long_skip in whole and bool(self.long_skip_levels)
        )
        require(not mixed, f"{' and '.join(whole)} wire the whole decoder; long_skip_levels cannot depart from them")
        if self.long_skip in whole:
            require(self.long_skip_placebo != "dup", f"placebo dup has no meaning with long_skip {self.long_skip}")
            require(not self.long_skip_permute, f"long_skip_permute has no meaning with long_skip {self.long_skip}")
        require(
            not (self.long_skip_permute and self.long_skip_placebo == "dup"),
            "placebo dup has no meaning with long_skip_permute, for the two levels' maps differ in size",
        )
        require(
            not (self.input_skip and self.long_skip == "fullscale"),
            "input_skip has no meaning with long_skip fullscale, whose decoder maps have other channels",
        )
        kinds = {self.long_skip, *self.long_skip_levels.values()}
        nothing = self.long_skip_gradient == "backward_only" or self.long_skip_placebo == "zeros"
        require(
            not ("mul" in kinds and nothing),
            "long_skip mul multiplies by what passes: with long_skip_gradient backward_only or placebo zeros nothing "
            "of the decoder's own map is left; use add",
        )
        stuck = self.order == "conv-norm-act" and self.activation in ("relu", "sigmoid")
        require(
            not (self.zero_last and stuck),
            "zero_last needs order norm-act-conv, or an activation other than relu and sigmoid: after relu a branch of "
            f"zeros never learns, after sigmoid it is not zero; got conv-norm-act and {self.activation}",
        )
        if self.depth is not None:
            self._check_levels(self.depth)

    def _check_levels(self, depth: int) -> None:
        """Refuse settings that name levels which a network of ``depth`` does not have."""
        for name, last in (("long_skip_levels", depth - 1), ("short_skip_levels", depth), ("convs_levels", depth)):
            wrong = [level for level in getattr(self, name) if not 0 <= level <= last]
            require(not wrong, f"{name} names level {wrong}, but this network has levels 0 to {last}")
        fits = self.widths is None or len(self.widths) == depth + 1
        require(fits, f"widths needs {depth + 1} values for depth {depth}, got {self.widths}")
        sources = self.long_skip_permute
        fits = sources is None or sorted(sources) == list(range(depth))
        require(fits, f"long_skip_permute must name each of the levels 0 to {depth - 1} once, got {sources}")

    def long_skip_at(self, level: int) -> LongSkip:
        """Long skip connection at ``level``."""
        return self.long_skip_levels.get(level, self.long_skip)

    def short_skip_at(self, level: int, place: Place) -> ShortSkip:
        """Short skip connection of the block at ``level`` in ``place``."""
        return self.short_skip_levels.get(level, self.short_skip) if place in self.short_skip_where else "none"

    def convs_at(self, level: int) -> int:
        """Convolutions of a block at ``level``."""
        return self.convs_levels.get(level, self.convs)

    def channels(self) -> list[int]:
        """Channels of each level, finest first; ``depth`` and ``width`` or ``widths`` must be set.

        Raises:
            SkipSegError: If they are not.

        Examples:
            >>> NetworkSettings(depth=3, width=32, max_width=128).channels()
            [32, 64, 128, 128]
        """
        if self.depth is None or (self.width is None and self.widths is None):
            raise SkipSegError(f"a network needs depth and width, got {self.depth} and {self.width}")
        return self.widths or [min((self.width or 0) * 2**i, self.max_width) for i in range(self.depth + 1)]
