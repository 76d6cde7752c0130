import math

import numpy as np
import pytest
import torch
from scipy.ndimage import affine_transform

from iterative_retraining.models import augment as module
from iterative_retraining.models.augment import N_LABELS, augment, draw, labels, matrices, resample

ALL = {"a2": -1.1, "a3": 0.7, "a4": 2.0, "a5": 0.9, "a6": 0.6, "a7": -0.8}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def parameters(**values):
    """One row of a0 to a7, float64, zero where not given."""
    return torch.tensor([[values.get(f"a{i}", 0.0) for i in range(8)]], dtype=torch.float64)


def transformed(x, **values):
    return resample(x, matrices(parameters(**values).expand(len(x), -1), *x.shape[2:]))


def noise(*shape):
    return torch.randn(shape, generator=seeded(), dtype=torch.float64)


def sources(height, width, a2=0.0, a3=0.0, a4=0.0, a5=0.0, a6=0.0, a7=0.0):
    """Where pixels come from, x and y from the centre, undone one after another in the words of the docstring."""
    y, x = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) + 0.5 - n / 2 for n in (height, width)), indexing="ij")
    x, y = x - 0.125 * width * a6, y - 0.125 * height * a7
    along, across = x * math.cos(a4) + y * math.sin(a4), y * math.cos(a4) - x * math.sin(a4)
    along, across = along / 2 ** (0.2 * a5), across * 2 ** (0.2 * a5)
    x, y = along * math.cos(a4) - across * math.sin(a4), along * math.sin(a4) + across * math.cos(a4)
    turned = torch.complex(x, -y) * complex(math.cos(a3), -math.sin(a3))  # seen with y upwards, and turned back
    return turned.real / 2 ** (0.2 * a2), -turned.imag / 2 ** (0.2 * a2)


EACH = [{"a2": 0.8}, {"a2": -0.8}, {"a3": 0.5}, {"a4": 0.4, "a5": 1.2}, {"a6": 0.3}, {"a7": -0.45}, ALL]


@pytest.mark.parametrize("values", EACH)
def test_a_smooth_spot_goes_where_the_formulas_send_it(values):
    def spot(x, y):  # nothing at the frame's edge, and a spectrum below 1e-5 where ALL, which shrinks it, cuts
        return torch.exp(-((x - 3) ** 2 + (y + 2) ** 2 + 0.3 * x * y) / 8)

    x, y = sources(32, 36, **values)
    inside = (x.abs() < 18) & (y.abs() < 16)
    result = transformed(spot(*sources(32, 36))[None, None], **values)[0, 0]
    assert inside.sum() > 600
    torch.testing.assert_close(result[inside], spot(x, y)[inside], atol=1e-5, rtol=0)


@pytest.mark.parametrize("values", [*EACH, {**ALL, "a2": -5.0}])
def test_cosines_are_evaluated_exactly_beyond_the_frame_too(values):
    def waves(x, y):  # even about the frame's edges, hence its own mirror image beyond them
        u, v = math.pi * (x / 20 + 0.5), math.pi * (y / 16 + 0.5)
        return 0.3 + (2 * u).cos() * v.cos() - 0.5 * (3 * u).cos() + (4 * v).cos()

    expected = waves(*sources(16, 20, **values))[None, None]
    torch.testing.assert_close(transformed(waves(*sources(16, 20))[None, None], **values), expected, atol=1e-12, rtol=0)


def test_equals_splines_of_scipy_on_a_smooth_image():
    series = noise(5, 5).numpy()
    cosines = np.cos(np.pi / 32 * np.outer(np.arange(32) + 0.5, np.arange(5)))
    image = cosines @ series @ cosines.T
    maps = matrices(parameters(**ALL), 32, 32)[0].flip(0).numpy()  # scipy counts rows first, from the first pixel
    linear, offset, centre = maps[:, 1::-1], maps[:, 2], np.full(2, 15.5)
    expected = affine_transform(image, linear, offset + centre - linear @ centre, order=5, mode="reflect")
    ours = transformed(torch.from_numpy(image)[None, None], **ALL)[0, 0].numpy()
    np.testing.assert_allclose(ours, expected, atol=1e-4 * np.abs(image).max())


@pytest.mark.parametrize("quarters", [-2, -1, 1, 2])
def test_quarter_turns_are_counter_clockwise_and_exact(quarters):
    x = noise(1, 2, 9, 9)
    torch.testing.assert_close(transformed(x, a3=quarters * math.pi / 2), torch.rot90(x, quarters, (2, 3)))


@pytest.mark.parametrize(("right", "down"), [(3, 0), (0, -2), (-5, 4), (15, 0)])
def test_whole_pixels_are_shifted_exactly_and_mirrored_at_the_outer_edge(right, down):
    x = noise(1, 3, 10, 12)
    mirrored = np.pad(x.numpy(), ((0, 0), (0, 0), (20, 20), (20, 20)), mode="symmetric")
    expected = torch.from_numpy(mirrored[:, :, 20 - down : 30 - down, 20 - right : 32 - right])
    torch.testing.assert_close(transformed(x, a6=8 * right / 12, a7=8 * down / 10), expected)


def test_waves_finer_than_the_pixels_are_left_out():
    def cosine(k, x):
        return (math.pi * k * (x / 32 + 0.5)).cos()

    x, y = sources(32, 32)
    shrunk = {"a2": -2.0}  # to 0.76 of the size: of 32 frequencies, the first 24 stay
    fine, coarse = cosine(25, x)[None, None], cosine(24, x)[None, None]
    torch.testing.assert_close(transformed(fine, **shrunk), torch.zeros_like(fine), atol=1e-12, rtol=0)
    expected = cosine(24, sources(32, 32, **shrunk)[0])[None, None]
    torch.testing.assert_close(transformed(coarse, **shrunk), expected, atol=1e-12, rtol=0)
    # turned by 0.4, one of the two plane waves of this product has 32.3 half periods a frame, the other 23
    x_from, y_from = sources(32, 32, a3=0.4)
    u, v = math.pi * 30 * (x_from / 32 + 0.5), math.pi * 12 * (y_from / 32 + 0.5)
    both = (cosine(30, x) * cosine(12, y))[None, None]
    torch.testing.assert_close(transformed(both, a3=0.4)[0, 0], (u - v).cos() / 2, atol=1e-12, rtol=0)


def test_probability_zero_only_mirrors_to_the_bit():
    x = noise(64, 3, 8, 8)
    out, told = augment(x, seeded(), 0.0)
    mirrored = told[:, 0] == 1
    assert 16 < mirrored.sum() < 48
    assert torch.equal(out[mirrored], x[mirrored].flip(3))
    assert torch.equal(out[~mirrored], x[~mirrored])
    assert not told[:, 1:].any()


def test_augment_flips_first_and_tells_what_it_did():
    x = noise(50, 1, 8, 8)
    out, told = augment(x, seeded(), 0.4)
    drawn = draw(50, seeded(), 0.4)
    for image, result, row in zip(x.split(1), out.split(1), drawn.split(1), strict=True):
        flipped = image.flip([axis for axis, on in ((3, row[0, 0]), (2, row[0, 1])) if on])
        if row[0, 2:].any():
            flipped = resample(flipped, matrices(row.double(), 8, 8))
            torch.testing.assert_close(result, flipped)
        else:
            assert torch.equal(result, flipped)
    assert torch.equal(told, labels(drawn))
    assert (told.shape, told.dtype) == ((50, N_LABELS), torch.float32)


def test_labels_are_those_of_the_paper():
    a = torch.tensor([[1.0, 0.0, 0.3, -0.7, 2.0, -1.5, 0.4, 0.6]], dtype=torch.float64)
    turned, stretched = [math.cos(-0.7) - 1, math.sin(-0.7)], [-1.5 * math.cos(2.0), -1.5 * math.sin(2.0)]
    expected = torch.tensor([[1.0, 0.0, 0.3, *turned, *stretched, 0.4, 0.6]], dtype=torch.float64)
    torch.testing.assert_close(labels(a), expected)
    assert not labels(torch.zeros(1, 8)).any()


def test_what_is_always_on_has_the_moments_of_its_distribution():
    n = 40_000
    a = draw(n, seeded(), 1.0).double()
    flat = math.pi**2 / 3
    mean = torch.tensor([0.5, 0.5, 0, 0, 0, 0, 0, 0], dtype=torch.float64)
    var = torch.tensor([0.25, 0.25, 1, flat, flat, 1, 1, 1], dtype=torch.float64)
    assert ((a.mean(0) - mean).abs() < 5 * (var / n).sqrt()).all()
    fourth = torch.tensor([1, 1, 3, 1.8, 1.8, 3, 3, 3], dtype=torch.float64)  # over the squared variance
    assert ((a.var(0) / var - 1).abs() < 5 * ((fourth - 1) / n).sqrt() + 1e-3).all()
    assert (torch.corrcoef(a.T) - torch.eye(8)).abs().max() < 5 / math.sqrt(n)
    assert a[:, 3:5].abs().max() <= math.pi + 1e-6


def test_transformations_are_switched_on_independently():
    n, p = 40_000, 0.12
    on = draw(n, seeded(), p) != 0
    assert torch.equal(on[:, 4], on[:, 5])
    assert torch.equal(on[:, 6], on[:, 7])
    on = on[:, [0, 1, 2, 3, 4, 6]].double()
    rates = torch.tensor([0.5, p / 2, p, p, p, p], dtype=torch.float64)
    assert ((on.mean(0) - rates).abs() < 5 * (rates * (1 - rates) / n).sqrt()).all()
    assert (torch.corrcoef(on.T) - torch.eye(6)).abs().max() < 5 / math.sqrt(n)


def test_one_seed_one_result_and_the_draws_depend_on_nothing_else():
    x = noise(6, 1, 8, 8)
    first, second, other = seeded(3), seeded(3), seeded(3)
    out, told = augment(x, first, 0.5)
    again, told_again = augment(x, second, 0.5)
    assert torch.equal(out, again)
    assert torch.equal(told, told_again)
    augment(torch.zeros(6, 3, 4, 4), other, 0.0)
    assert torch.equal(first.get_state(), other.get_state())


def test_an_image_does_not_depend_on_the_others_of_its_batch(monkeypatch):
    x, maps = noise(7, 2, 8, 8), matrices(draw(7, seeded(), 1.0).double(), 8, 8)
    whole = resample(x, maps)
    monkeypatch.setattr(module, "_FLOATS_AT_ONCE", 2500)  # two images at a time
    torch.testing.assert_close(resample(x, maps), whole)
    torch.testing.assert_close(resample(x[3:4], maps[3:4]), whole[3:4])


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_float32_agrees_with_float64_and_the_memory_format_stays(memory_format):
    x = noise(20, 3, 16, 16).float().to(memory_format=memory_format)
    before = x.clone()
    out, told = augment(x, seeded(), 0.5)
    expected, told_double = augment(x.double(), seeded(), 0.5)
    assert out.dtype == torch.float32
    assert out.is_contiguous(memory_format=memory_format)
    torch.testing.assert_close(out.double(), expected, atol=1e-4, rtol=0)
    assert torch.equal(told, told_double)
    assert torch.equal(x, before)


@pytest.mark.parametrize("probability", [-0.1, 1.5, float("nan")])
def test_impossible_probabilities_are_refused(probability):
    with pytest.raises(ValueError, match=r"augment_probability = .* must lie in \[0, 1\]"):
        augment(torch.zeros(2, 1, 4, 4), seeded(), probability)
