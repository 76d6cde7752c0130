"""Checkpoints in the layout of ddpm-torch's, evaluated here by their published names, and read."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from iterative_retraining.errors import ConfigError, PretrainedError
from iterative_retraining.experiment import open_experiment
from iterative_retraining.models import build_model, resolve_options
from iterative_retraining.models.ddpm import DDPM
from iterative_retraining.models.fitting import Fit
from iterative_retraining.models.networks.foreign import DiffusersUNetConfig
from iterative_retraining.models.pretrained import read_weights, state_that_fits

from conftest import Calls

MULTIPLIERS, WIDTH, GROUPS, BLOCKS, ATTENDED = (1, 2), 8, 4, 1, (1,)
NETWORK = DiffusersUNetConfig(
    resolution=8, colours=1, channels=8, multipliers=(1, 2), blocks_per_level=1, attention_resolutions=(4,),
    dropout=0.0, norm_groups=4,
)  # fmt: skip
OPTIONS = {"network": "diffusers", "channels": 8, "norm_groups": 4, "n_steps": 2, "sampling_batch_size": 700}
DIGITS = {"model": "ddpm", "dataset": "digits", "item_shape": (8, 8, 1)}


def shapes(
    multipliers=MULTIPLIERS, base=WIDTH, n_blocks=BLOCKS, attended=ATTENDED, colours=1
) -> dict[str, tuple[int, ...]]:
    """Layers of a network of theirs in the order of its parameters, with the shapes of their weights."""
    wide, widths, last = 4 * base, [base * m for m in multipliers], len(multipliers) - 1
    found = {"embed.0": (wide, base), "embed.2": (wide, wide), "in_conv": (base, colours, 3, 3)}

    def residual(name: str, before: int, after: int) -> None:
        found.update({f"{name}.norm1": (before,), f"{name}.conv1": (after, before, 3, 3), f"{name}.fc": (after, wide)})
        found.update({f"{name}.norm2": (after,), f"{name}.conv2": (after, after, 3, 3)})
        found.update({f"{name}.skip": (after, before, 1, 1)} if before != after else {})

    def attention(name: str, width: int) -> None:
        found.update({f"{name}.norm": (width,), f"{name}.project_in": (3 * width, width, 1, 1)})
        found.update({f"{name}.project_out": (width, width, 1, 1)})

    def block(name: str, level: int, before: int, after: int) -> None:
        residual(f"{name}.0" if level in attended else name, before, after)
        if level in attended:
            attention(f"{name}.1", after)

    for level, width in enumerate(widths):
        for j in range(n_blocks):
            block(f"downsamples.level_{level}.{j}", level, width if j else widths[max(0, level - 1)], width)
        found.update({f"downsamples.level_{level}.{n_blocks}.1": (width, width, 3, 3)} if level < last else {})
    residual("middle.0", widths[-1], widths[-1])
    attention("middle.1", widths[-1])
    residual("middle.2", widths[-1], widths[-1])
    for level, width in enumerate(widths):
        kept = [width] * n_blocks + [widths[level - 1] if level else base]
        for j in range(n_blocks + 1):
            block(
                f"upsamples.level_{level}.{j}", level, (width if j else widths[min(last, level + 1)]) + kept[j], width
            )
        found.update({f"upsamples.level_{level}.{n_blocks + 1}.1": (width, width, 3, 3)} if level else {})
    return found | {"out_conv.0": (base,), "out_conv.2": (colours, base, 3, 3)}


def random_weights(seed: int) -> dict[str, Tensor]:
    rng, found = torch.Generator().manual_seed(seed), {}
    for name, shape in shapes().items():
        found[f"{name}.weight"] = 0.3 * torch.randn(shape, generator=rng)
        found[f"{name}.bias"] = 0.3 * torch.randn(shape[0], generator=rng)
    return found


class Theirs:
    """The noise that such weights predict, written from the equations of Ho et al. (2020), appendix B."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        self.weights = weights

    def layer(self, name: str) -> tuple[Tensor, Tensor]:
        return self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]

    def normed(self, name: str, x: Tensor) -> Tensor:
        return F.group_norm(x, GROUPS, *self.layer(name), eps=1e-6)

    def residual(self, name: str, x: Tensor, embedding: Tensor) -> Tensor:
        h = F.conv2d(F.silu(self.normed(f"{name}.norm1", x)), *self.layer(f"{name}.conv1"), padding=1)
        h = h + F.linear(F.silu(embedding), *self.layer(f"{name}.fc"))[:, :, None, None]
        h = F.conv2d(F.silu(self.normed(f"{name}.norm2", h)), *self.layer(f"{name}.conv2"), padding=1)
        return h + (F.conv2d(x, *self.layer(f"{name}.skip")) if f"{name}.skip.weight" in self.weights else x)

    def attention(self, name: str, x: Tensor) -> Tensor:
        q, k, v = F.conv2d(self.normed(f"{name}.norm", x), *self.layer(f"{name}.project_in")).flatten(2).chunk(3, dim=1)
        shares = torch.softmax(q.transpose(1, 2) @ k / q.shape[1] ** 0.5, dim=2)
        return x + F.conv2d((v @ shares.transpose(1, 2)).view_as(x), *self.layer(f"{name}.project_out"))

    def block(self, name: str, level: int, x: Tensor, embedding: Tensor) -> Tensor:
        if level not in ATTENDED:
            return self.residual(name, x, embedding)
        return self.attention(f"{name}.1", self.residual(f"{name}.0", x, embedding))

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        half = WIDTH // 2
        angles = t[:, None] * 10_000 ** (-torch.arange(half) / (half - 1))
        embedding = F.silu(F.linear(torch.cat([angles.sin(), angles.cos()], dim=1), *self.layer("embed.0")))
        embedding, last = F.linear(embedding, *self.layer("embed.2")), len(MULTIPLIERS) - 1
        kept = [F.conv2d(x, *self.layer("in_conv"), padding=1)]
        for level in range(last + 1):
            kept.append(self.block(f"downsamples.level_{level}.0", level, kept[-1], embedding))
            if level < last:  # padded below and on the right, as "same" is with stride 2
                padded = F.pad(kept[-1], (0, 1, 0, 1))
                kept.append(F.conv2d(padded, *self.layer(f"downsamples.level_{level}.1.1"), stride=2))
        h = self.residual("middle.0", kept[-1], embedding)
        h = self.residual("middle.2", self.attention("middle.1", h), embedding)
        for level in reversed(range(last + 1)):
            for j in range(BLOCKS + 1):
                h = self.block(f"upsamples.level_{level}.{j}", level, torch.cat([h, kept.pop()], dim=1), embedding)
            if level:
                h = F.interpolate(h, scale_factor=2, mode="nearest")
                h = F.conv2d(h, *self.layer(f"upsamples.level_{level}.2.1"), padding=1)
        return F.conv2d(F.silu(self.normed("out_conv.0", h)), *self.layer("out_conv.2"), padding=1)


def moments(weights: dict[str, Tensor]) -> dict:
    """The state of an Adam after one step with gradients of ones."""
    parameters = [torch.nn.Parameter(tensor.clone()) for tensor in weights.values()]
    adam = torch.optim.Adam(parameters, lr=2e-4, betas=(0.9, 0.999))
    for k, p in enumerate(parameters):
        p.grad = torch.full_like(p, 1.0 + k)
    adam.step()
    return adam.state_dict()


@pytest.fixture
def written(tmp_path):
    """A checkpoint as that code writes it: its path, raw weights and their EMA."""
    raw, ema = random_weights(0), random_weights(1)

    def write(prefix="", **changes):
        content = {"model": {prefix + name: t for name, t in raw.items()}, "optimizer": moments(raw)}
        content["ema"] = {"decay": 0.9999, "shadow": {prefix + n: t for n, t in ema.items()}, "num_updates": 800_000}
        content |= {"scheduler": {"base_lrs": [2e-4], "last_epoch": 9, "lr_lambdas": [None]}, "epoch": 2040}
        path = tmp_path / "cifar10_2040.pt"
        torch.save({k: v for k, v in (content | changes).items() if v is not None}, path)
        return path

    return write, raw, ema


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
def test_the_noise_is_that_of_the_ema_by_its_published_names(written, prefix):
    write, raw, ema = written
    x, t = torch.randn(3, 1, 8, 8), torch.tensor([0.0, 500.0, 999.0])
    found = read_weights(write(prefix), NETWORK)
    assert (found.network, found.process) == (NETWORK, DDPM())
    torch.testing.assert_close(found(x, t), Theirs(ema)(x, t), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(read_weights(write(ema=None), NETWORK)(x, t), Theirs(raw)(x, t), rtol=1e-4, atol=1e-4)
    torch.save(raw, write())  # the weights alone, which that code reads too
    torch.testing.assert_close(read_weights(write().parent / "cifar10_2040.pt", NETWORK)(x, t), Theirs(ema)(x, t))


def test_training_goes_on_with_the_raw_weights_and_moments_of_the_file(written):
    write, raw, _ = written
    options = resolve_options("ddpm", "digits", OPTIONS | {"next_start": "raw", "keep_optimizer": True})
    model = build_model("ddpm", (8, 8, 1), options, n_images_initial=0, n_images_per_retraining=0)
    model.load_state_dict(state_that_fits(write(), options=options, **DIGITS))
    state = Fit(model.net, model._flat, model.config, from_scratch=False, carried=model._carried).state()
    assert state["adam_steps"] == 1
    layer = "inner.mid_block.attentions.0.to_k"
    rows = raw["middle.1.project_in.weight"][16:32, :, 0, 0]
    np.testing.assert_array_equal(state[f"raw/{layer}.weight"], rows)
    k = list(raw).index("middle.1.project_in.weight")  # gradients of 1 + k: a tenth of that is the first moment
    np.testing.assert_allclose(state[f"exp_avg/{layer}.weight"], np.full((16, 16), 0.1 * (1 + k)), rtol=1e-6)
    np.testing.assert_allclose(state["exp_avg_sq/inner.conv_out.bias"], [1e-3 * len(raw) ** 2], rtol=1e-6)


def test_the_published_network_is_the_default(written, tmp_path):
    one, layers = torch.ones(1), shapes((1, 2, 2, 2), 128, 2, (1,), 3)  # configs/cifar10.json of that code
    weights = {f"{name}.weight": one.expand(shape) for name, shape in layers.items()}
    weights |= {f"{name}.bias": one.expand(shape[0]) for name, shape in layers.items()}
    torch.save({"ema": {"shadow": weights}, "in_conv.weight": one}, tmp_path / "large.pt")
    options = resolve_options("ddpm", "cifar10", {"network": "diffusers"})
    cifar10 = {"model": "ddpm", "dataset": "cifar10", "item_shape": (32, 32, 3)}
    found = state_that_fits(tmp_path / "large.pt", options=options, **cifar10)
    assert sum(array.size for array in found.values()) == 35_746_307
    with pytest.raises(PretrainedError, match=r"2040\.pt, a checkpoint of ddpm-torch: its weights are not those of"):
        read_weights(written[0]())


def test_a_run_starts_from_such_a_file(written, tmp_path):
    run = {"model": "ddpm", "init": str(written[0]()), "n_retrain": 0, "model_options": OPTIONS}
    experiment = open_experiment(**run, run_dir=tmp_path / "run")
    (start,) = experiment.records()
    assert start.n_images == 0
    np.testing.assert_array_equal(
        experiment.run.load_state()["inner.conv_in.weight"], written[2]["in_conv.weight"].numpy()
    )
    with pytest.raises(ConfigError, match=r"needs model = 'ddpm' and, in model_options, {'n_levels': 1000}"):
        open_experiment(**run | {"model_options": OPTIONS | {"n_levels": 500}}, run_dir=tmp_path / "other")
    assert json.loads((tmp_path / "run" / "config.json").read_text())["identity"]["init"].startswith("cifar10_2040.pt@")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ema": {"shadow": 3}}, "its weights are not those of its configuration"),
        ({"ema": {"shadow": {"in_conv.weight": "text"}}}, "it holds no tensors by name"),
        ({"optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}}}, "the moments of the optimizer are not Adam's"),
        ({"model": {"in_conv.weight": torch.zeros(3)}}, "its weights are not those of its configuration"),
    ],
)
def test_other_contents_are_refused_with_the_reason(written, changes, message):
    with pytest.raises(PretrainedError, match=rf"cifar10_2040\.pt, a checkpoint of ddpm-torch: {message}"):
        read_weights(written[0](**changes), NETWORK)


def test_a_hostile_checkpoint_is_refused_and_runs_nothing(written, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = written[0](epoch=Calls(os.system, "touch executed"))
    with pytest.raises(PretrainedError, match=r"is refused: it asks for posix\.system, .*nothing of it was executed"):
        read_weights(path, NETWORK)
    assert not Path("executed").exists()
