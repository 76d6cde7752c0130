import numpy as np
import pytest
import torch

from iterative_retraining.datasets import load_dataset
from iterative_retraining.models import build_model, resolve_options
from iterative_retraining.models.spline_flow import LEVEL, MaximumLikelihood, SplineFlowConfig
from iterative_retraining.seeding import torch_seed
from iterative_retraining.training_set import TrainingSet

SMALL = {"n_transforms": 2, "width": 32, "batch_size": 64, "ema_halflife_images": 500}


def fitted(digits, n_images):
    options = resolve_options("spline_flow", "digits", SMALL)
    model = build_model("spline_flow", (8, 8, 1), options, n_images_initial=n_images, n_images_per_retraining=640)
    return model.fit(TrainingSet.of(digits), seed=0)


def test_the_density_integrates_to_one():
    with torch_seed(0):
        flow = SplineFlowConfig(resolution=1, colours=2, n_transforms=2, width=16).build()
    side = torch.linspace(-7, 7, 1401)
    grid = torch.cartesian_prod(side, side).view(-1, 2, 1, 1)
    with torch.no_grad():
        mass = MaximumLikelihood().log_prob(flow, grid).double().exp().sum() * 0.01**2
    torch.testing.assert_close(mass, torch.tensor(1.0).double(), atol=1e-3, rtol=0)


def test_samples_are_the_inverse_of_the_transform_whose_density_is_given():
    with torch_seed(0):
        flow = SplineFlowConfig(resolution=2, n_transforms=2, width=16).build()
    noise = torch.randn(20, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        x = MaximumLikelihood().sample(flow, lambda k: noise).float()
        z, log_det = flow().transform.call_and_ladj(x.flatten(1))
        expected = log_det - 0.5 * z.square().sum(dim=1) - 2 * np.log(2 * np.pi)
        torch.testing.assert_close(z, noise.flatten(1), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(MaximumLikelihood().log_prob(flow, x), expected)


def test_the_loss_spreads_pixels_over_their_level():
    seen = []

    class Net(torch.nn.Module):
        def forward(self):
            return self

        def log_prob(self, x):
            seen.append(x)
            return x.sum(dim=1)

    x, noise = torch.zeros(2000, 1, 2, 2), torch.from_numpy(np.random.default_rng(0).standard_normal((2000, 1, 2, 2)))
    errors = MaximumLikelihood().loss_terms(Net(), x, torch.zeros(2000), noise)
    torch.testing.assert_close(errors, -seen[0].sum(dim=1) / 4)
    assert seen[0].abs().max() <= LEVEL / 2
    np.testing.assert_allclose(seen[0].std(), LEVEL / np.sqrt(12), rtol=0.02)


def test_training_raises_the_likelihood_of_images_that_were_not_seen(digits):
    seen, held_out = digits, load_dataset("digits", split="test")[0]
    before, after = fitted(seen, 64), fitted(seen, 64 * 150)
    assert after.log_prob(held_out).mean() > before.log_prob(held_out).mean() + 20
    noise = np.random.default_rng(0).integers(0, 256, held_out.shape, dtype=np.uint8)
    assert after.log_prob(held_out).mean() > after.log_prob(noise).mean() + 20
    images = after.sample(10, seed=1)
    assert (images.shape, images.dtype) == ((10, 8, 8, 1), np.uint8)
    after.config = type(after.config)(**{**vars(after.config), "sampling_batch_size": 4})
    np.testing.assert_allclose(after.sample(10, seed=1).astype(int), images, atol=1)


def test_only_the_flow_has_an_exact_density(digits):
    options = resolve_options("edm", "digits", {"channels": 4})
    model = build_model("edm", (8, 8, 1), options, n_images_initial=0, n_images_per_retraining=0)
    with pytest.raises(ValueError, match="EDM has no exact density; spline_flow has one"):
        model.log_prob(digits[:2])


def test_options_are_those_of_the_flow():
    options = resolve_options("spline_flow", "digits", {})
    assert "channels" not in options
    assert options["ema_halflife_images"] == 5000
    with pytest.raises(ValueError, match="unknown option 'channels' of model 'spline_flow'"):
        resolve_options("spline_flow", "digits", {"channels": 3})
    with pytest.raises(ValueError, match="n_bins = 0 is not allowed"):
        SplineFlowConfig(n_bins=0)
