import pytest
import torch

from segmentation.model.skips import join_long_skip, join_short_skip, long_skip_channels

UP = torch.arange(24.0).reshape(1, 2, 3, 4)
ENCODED = UP.flip(0, 2) - 7


def test_concat_keeps_the_decoder_map_in_front():
    joined = join_long_skip(UP, ENCODED, "concat")
    assert torch.equal(joined, torch.cat((UP, ENCODED), dim=1))
    assert joined.shape[1] == long_skip_channels("concat", 2)


def test_add_sums_and_none_ignores_the_encoder():
    assert torch.equal(join_long_skip(UP, ENCODED, "add"), UP + ENCODED)
    assert join_long_skip(UP, None, "none") is UP
    assert long_skip_channels("add", 2) == long_skip_channels("none", 2) == 2


@pytest.mark.parametrize("kind", ["concat", "add"])
@pytest.mark.parametrize("encoded", [None, ENCODED[..., :3], ENCODED[:, :1]])
def test_maps_of_two_shapes_are_refused_even_where_they_would_broadcast(kind, encoded):
    with pytest.raises(ValueError, match=r"one shape, got \(1, 2, 3, 4\) and"):
        join_long_skip(UP, encoded, kind)


def test_short_skips_follow_their_formulas():
    assert join_short_skip(UP, ENCODED, "none") is ENCODED
    assert torch.equal(join_short_skip(UP, ENCODED, "add"), UP + ENCODED)
    assert torch.equal(join_short_skip(UP, ENCODED, "dense"), torch.cat((UP, ENCODED), dim=1))


@pytest.mark.parametrize(("join", "name"), [(join_long_skip, "long"), (join_short_skip, "short")])
def test_an_unknown_kind_is_refused(join, name):
    with pytest.raises(ValueError, match=f"{name} skip must be one of .*'gated'"):
        join(UP, ENCODED, "gated")
