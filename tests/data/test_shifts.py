import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from segmentation.data.shifts import add_noise, bias_field, blur, gain, standardise


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_noise_has_its_level_in_standard_deviations_of_the_images():
    images = 5 * draw(4, 1, 64, 64)
    added = add_noise(images, 0.5, seed=3) - images
    assert added.std().item() == pytest.approx(0.5 * images.std().item(), rel=0.02)
    assert abs(torch.corrcoef(torch.stack((added.flatten(), images.flatten())))[0, 1]) < 0.03


def test_noise_depends_on_its_seed_alone():
    images = draw(1, 1, 8, 8)
    torch.testing.assert_close(add_noise(images, 1.0, seed=1), add_noise(images, 1.0, seed=1))
    assert not torch.equal(add_noise(images, 1.0, seed=1), add_noise(images, 1.0, seed=2))


@pytest.mark.parametrize(("shape", "sigma"), [((13, 17), 1.0), ((12, 11), 2.0), ((7, 9, 8), 0.7)])
def test_blur_equals_that_of_scipy(shape: tuple[int, ...], sigma: float):
    images = draw(2, 2, *shape)
    radius = int(np.ceil(3 * sigma))
    theirs = gaussian_filter(images.double().numpy(), (0, 0, *(sigma,) * len(shape)), mode="nearest", radius=radius)
    torch.testing.assert_close(blur(images, sigma).double(), torch.tensor(theirs), atol=1e-5, rtol=0)


def test_gain_keeps_the_mean():
    images = draw(2, 3, 5, 5)
    torch.testing.assert_close(gain(images, 0.5).mean(dim=(2, 3)), images.mean(dim=(2, 3)))
    torch.testing.assert_close(gain(images, 0.5).std(dim=(2, 3)), images.std(dim=(2, 3)) / 2)


@pytest.mark.parametrize("shape", [(2, 2, 24, 24), (1, 1, 8, 9, 10)])
def test_field_is_smooth_and_stays_within_its_factor(shape: tuple[int, ...]):
    images = 2 + torch.rand(*shape, generator=torch.Generator().manual_seed(0))
    lowest = images.amin(dim=tuple(range(2, len(shape))), keepdim=True)
    shifted = bias_field(images, 3.0)
    known = images > lowest + 1e-3
    field = torch.where(known, (shifted - lowest) / (images - lowest), torch.ones(()))
    assert field.min() >= 1 / 3 - 1e-4
    assert field.max() <= 3 + 1e-4
    assert max(field.max().item(), 1 / field.min().item()) > 2.7
    steepest = 6 * np.log(3) / (shape[-1] - 1)  # from 1/3 to 3 over a third of the extent
    assert torch.log(field).diff(dim=-1)[known[..., 1:] & known[..., :-1]].abs().max() <= steepest + 1e-3
    torch.testing.assert_close(bias_field(images, 1.0), images)


def test_each_image_has_a_field_of_its_own_and_channels_share_it():
    ramp = torch.arange(64.0).view(1, 1, 8, 8).expand(2, 2, 8, 8)
    shifted = bias_field(ramp, 2.0)
    torch.testing.assert_close(shifted[:, 0], shifted[:, 1])
    assert not torch.allclose(shifted[0], shifted[1])


def test_standardised_images_have_mean_0_and_deviation_1_and_forget_their_gain():
    images = 3 + 2 * draw(2, 2, 6, 7)
    found = standardise(images)
    torch.testing.assert_close(found.mean(dim=(2, 3)), torch.zeros(2, 2), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.std(dim=(2, 3), unbiased=False), torch.ones(2, 2))
    torch.testing.assert_close(standardise(gain(images, 0.5)), found)
