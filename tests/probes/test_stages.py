import torch
from torch import nn

from segmentation.config import NetworkSettings
from segmentation.model.unet import UNet
from segmentation.probes.stages import at_points, captured, pooled, sample_stages, stages


def test_stages_run_from_input_to_output():
    network = UNet(NetworkSettings(depth=2, width=2), 2, 1, 2)
    found = stages(network)
    assert list(found) == ["E0", "E1", "B", "D1", "D0"]
    with captured(found) as maps:
        network(torch.zeros(1, 1, 8, 8))
    assert [tuple(maps[name].shape[1:]) for name in maps] == [(2, 8, 8), (4, 4, 4), (8, 2, 2), (4, 4, 4), (2, 8, 8)]


def test_hooks_are_gone_afterwards():
    layer = nn.Linear(1, 1)
    with captured({"a": layer}) as maps:
        pass
    layer(torch.zeros(1))
    assert maps == {}


def test_a_point_lies_in_the_same_place_of_every_resolution():
    fine = torch.arange(64.0).view(1, 1, 8, 8)
    coarse = nn.functional.avg_pool2d(fine, 4)
    points = torch.tensor([[0.99, 0.0], [0.3, 0.6]])
    image = torch.zeros(2, dtype=torch.long)
    assert at_points(fine, image, points).flatten().tolist() == [56.0, 20.0]
    assert at_points(coarse, image, points).flatten().tolist() == [coarse[0, 0, 1, 0].item(), coarse[0, 0, 0, 1].item()]


def test_samples_are_the_same_for_the_same_generator():
    network = UNet(NetworkSettings(depth=1, width=2), 2, 1, 2)
    images = torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    one, same = (sample_stages(network, stages(network), images, 5, torch.Generator().manual_seed(7)) for _ in range(2))
    assert one["B"].shape == (5, 4)
    assert torch.equal(one["D0"], same["D0"])
    assert pooled([one, same])["D0"].shape == (10, 2)
