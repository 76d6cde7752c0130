import pytest
import torch

from iterative_retraining.models.networks.ddpmpp import UNet, UNetConfig, embed_level

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
