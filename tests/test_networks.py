import pytest
import torch

from iterative_retraining.models.networks.ddpmpp import GroupNorm, UNet, UNetConfig, embed_level

CIFAR10 = UNetConfig()
FFHQ64 = UNetConfig(resolution=64, multipliers=(1, 2, 2, 2), dropout=0.05)


@pytest.mark.parametrize(("config", "count"), [(CIFAR10, 55_733_891), (FFHQ64, 61_805_571)])
def test_published_configurations_have_the_published_number_of_parameters(config, count):
    with torch.device("meta"):
        assert sum(p.numel() for p in UNet(config).parameters()) == count


@pytest.mark.parametrize(
    ("resolution", "colours", "multipliers"), [(8, 1, (1, 2)), (28, 1, (1, 2, 2)), (64, 3, (1, 2, 2, 2))]
)
def test_one_class_serves_every_size(resolution, colours, multipliers):
    config = UNetConfig(
        resolution=resolution,
        colours=colours,
        channels=8,
        multipliers=multipliers,
        blocks_per_level=1,
        augment_labels=0,
    )
    x = torch.randn(2, colours, resolution, resolution)
    net = UNet(config)
    out = net(x, torch.randn(2))
    assert out.shape == x.shape
    out.square().sum().backward()
    assert all(p.grad is not None for p in net.parameters())


def test_images_of_a_batch_do_not_mix():
    net = UNet(
        UNetConfig(resolution=8, colours=1, channels=8, multipliers=(1, 2), blocks_per_level=1, augment_labels=0)
    ).eval()
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.1)
    x, level = torch.randn(4, 1, 8, 8), torch.randn(4)
    torch.testing.assert_close(net(x, level)[2:3], net(x[2:3], level[2:3]))


def test_a_new_network_predicts_nearly_nothing():
    net = UNet(
        UNetConfig(resolution=8, colours=1, channels=8, multipliers=(1, 2), blocks_per_level=1, augment_labels=0)
    )
    assert net(torch.randn(2, 1, 8, 8), torch.randn(2)).abs().max() < 1e-2


def test_embedding_is_sines_and_cosines():
    phase = 0.3 * torch.tensor([1.0, 1e-4])  # frequencies from 1 down to 1e-4
    torch.testing.assert_close(embed_level(torch.tensor([0.3]), 4)[0], torch.cat([phase.sin(), phase.cos()]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"resolution": 9, "multipliers": (1, 2)}, "cannot be halved 1 times"),
        ({"channels": 7}, "must be even"),
        ({"dropout": 1.0}, "dropout = 1.0"),
        ({"blocks_per_level": 0}, "blocks_per_level = 0"),
    ],
)
def test_impossible_shapes_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        UNetConfig(**change)


@pytest.mark.parametrize("shape", [(5, 32, 8, 8), (3, 12, 7, 5), (2, 64, 1, 1)])
@pytest.mark.parametrize("offset", [0.0, 30.0])
def test_group_norm_in_sampling_is_that_of_torch_in_float64(shape, offset):
    torch.manual_seed(0)
    norm = GroupNorm(shape[1] // 4, shape[1], eps=1e-6)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    x = (offset + torch.randn(shape)).to(memory_format=torch.channels_last)
    expected = torch.nn.functional.group_norm(
        x.double(), norm.num_groups, norm.weight.double(), norm.bias.double(), norm.eps
    ).float()
    with torch.no_grad():
        found = norm(x)
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found, expected, atol=2e-6 * (1 + offset**2), rtol=1e-5)
    torch.testing.assert_close(norm(x), expected, atol=2e-6 * (1 + offset**2), rtol=1e-5)  # torch's own, with gradients


def test_sums_are_taken_where_they_win_alone(monkeypatch):
    taken = []
    monkeypatch.setattr(GroupNorm, "_by_sums", lambda self, x: taken.append(tuple(x.shape)) or x)
    norm, small = GroupNorm(2, 8), torch.randn(2, 8, 8, 8)
    norm(small.to(memory_format=torch.channels_last))  # with gradients
    with torch.no_grad():
        norm(small)  # contiguous
        norm(torch.randn(2, 8, 32, 32).to(memory_format=torch.channels_last))
        assert not taken
        norm(small.to(memory_format=torch.channels_last))
    assert taken == [(2, 8, 8, 8)]
