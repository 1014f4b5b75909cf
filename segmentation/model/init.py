"""Initial weights, drawn for each parameter by its name.

Two networks that differ in one skip connection draw the same numbers for every parameter whose name and shape
they share: what differs at the start of a comparison is the connection, not the luck of the draw. Only PyTorch's own
initialisation draws a bias within a bound that depends on what the weights of its layer read.
"""

import hashlib
import math

import torch
from torch import Tensor, nn

from segmentation.config import Activation, Init

_GAIN: dict[Activation, float] = {
    "relu": math.sqrt(2.0),
    "leaky_relu": math.sqrt(2.0 / (1 + 0.01**2)),
    "prelu": math.sqrt(2.0 / (1 + 0.25**2)),
    "elu": math.sqrt(2.0),
    "gelu": math.sqrt(2.0),
    "silu": math.sqrt(2.0),
    "tanh": 5.0 / 3.0,
    "sigmoid": 1.0,
    "identity": 1.0,
}
_CONVOLUTIONS = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def named_generator(name: str, seed: int) -> torch.Generator:
    """Make a random generator that depends on ``name`` and ``seed`` alone."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big", signed=True))


def fans(weight: Tensor, transposed: bool) -> tuple[int, int]:
    """Fan-in and fan-out of a convolution weight, shape ``(out, in, *kernel)``, or ``(in, out, *kernel)`` transposed.

    A transposed convolution whose stride equals its kernel writes each output voxel once, so its fan-in is
    its number of input channels; each input voxel still reaches a kernel full of output voxels.
    """
    first, second = weight.shape[:2]
    kernel = math.prod(weight.shape[2:])
    return (first, second * kernel) if transposed else (second * kernel, first * kernel)


def init_parameters(network: nn.Module, init: Init, activation: Activation, seed: int, factor: float = 1.0) -> None:
    """Draw every convolution of ``network`` anew; what is no convolution keeps the start that its class gives it.

    Args:
        network: Changed in place.
        init: ``"he"`` has variance gain^2 / fan_in (He et al. 2015, arXiv:1502.01852), ``"xavier"``
            2 / (fan_in + fan_out) (Glorot and Bengio 2010), ``"orthogonal"`` orthogonal rows times the gain
            (Saxe et al. 2014, arXiv:1312.6120), ``"torch"`` PyTorch's default: uniform within
            1 / sqrt(k), with k weights to each entry of the first axis. Biases are 0, except with ``"torch"``.
        activation: Sets the gain.
        seed: Same seed, same name, same shape: same numbers.
        factor: Factor on the drawn weights, not on biases.
    """
    for name, module in network.named_modules():
        if not isinstance(module, _CONVOLUTIONS):
            continue
        generator = named_generator(f"{name}.weight", seed)
        fan_in, fan_out = fans(module.weight, module.transposed)
        bound = 1 / math.sqrt(module.weight[0].numel())
        with torch.no_grad():
            match init:
                case "he":
                    module.weight.normal_(0, _GAIN[activation] / math.sqrt(fan_in), generator=generator)
                case "xavier":
                    module.weight.normal_(0, math.sqrt(2 / (fan_in + fan_out)), generator=generator)
                case "orthogonal":
                    nn.init.orthogonal_(module.weight, _GAIN[activation], generator=generator)
                case "torch":
                    module.weight.uniform_(-bound, bound, generator=generator)
            module.weight.mul_(factor)
            if module.bias is not None and init == "torch":
                module.bias.uniform_(-bound, bound, generator=named_generator(f"{name}.bias", seed))
            elif module.bias is not None:
                module.bias.zero_()
