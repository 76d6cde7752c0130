"""Batches in pieces: the same gradients, noise and dropout; and how much memory a step takes, known before it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from iterative_retraining.config import RunConfig
from iterative_retraining.distributed import Team
from iterative_retraining.errors import ConfigError
from iterative_retraining.experiment import open_experiment
from iterative_retraining.models import memory
from iterative_retraining.models.ddpm import DDPM
from iterative_retraining.models.edm import EDM
from iterative_retraining.models.fitting import TrainingConfig
from iterative_retraining.models.flow_matching import FlowMatching
from iterative_retraining.models.memory import chosen_micro_batch, images_that_fit, training_bytes
from iterative_retraining.models.networks.ddpmpp import UNetConfig
from iterative_retraining.models.networks.foreign import ADMConfig, DiffusersUNetConfig
from iterative_retraining.models.pieces import DropoutByIndex, pieces
from iterative_retraining.models.training import NetworkModel
from iterative_retraining.runs.provenance import read_manifest
from iterative_retraining.training_set import TrainingSet

from conftest import TINY_RUN

NETWORK = UNetConfig(
    resolution=8, colours=1, channels=8, multipliers=(1, 2), blocks_per_level=1, attention_resolutions=(4,),
    dropout=0.2, augment_labels=9,
)  # fmt: skip
CONFIG = TrainingConfig(
    network=NETWORK, n_images_initial=96, n_images_per_retraining=64, batch_size=16, augment_probability=0.3
)


def perturbed(process, config=CONFIG, team=None) -> NetworkModel:
    """A network whose last layers are not nearly nothing, as they are at the start."""
    model = NetworkModel(process, config, team=team)
    model._new_network(0)
    with torch.no_grad():
        model._flat.add_(torch.randn(model._flat.shape, generator=torch.Generator().manual_seed(1)), alpha=0.1)
    return model


def gradient(model: NetworkModel, images: torch.Tensor, weights: torch.Tensor | None) -> tuple[torch.Tensor, float]:
    """Of one batch with dropout: the gradient and the loss, of this process alone."""
    model._flat.grad.zero_()
    parts = []
    for part in model._losses(images, torch.Generator().manual_seed(0), weights, dropout=7):
        part.backward()
        parts.append(part.item())
    return model._flat.grad.clone(), sum(parts)


@pytest.mark.parametrize("micro_batch", [1, 5, 8, 16, 100])
@pytest.mark.parametrize("process", [EDM(), FlowMatching(), DDPM()])
def test_the_gradients_of_pieces_add_up_to_those_of_the_batch(digits, process, micro_batch):
    """With augmentation, dropout, coupled noise and weights: all random numbers belong to the places in the batch."""
    images, weights = torch.from_numpy(digits[:16]), torch.linspace(0, 2, 16)
    model = perturbed(process)
    whole, loss = gradient(model, images, weights)
    model.split_batches(micro_batch)
    in_pieces, loss_in_pieces = gradient(model, images, weights)
    assert (in_pieces - whole).norm() < 1e-5 * whole.norm()
    assert loss_in_pieces == pytest.approx(loss, rel=1e-6)
    if micro_batch >= 16:
        assert torch.equal(in_pieces, whole)


@pytest.mark.parametrize("micro_batch", [0, 2])
@pytest.mark.parametrize("n", [16, 2])
def test_a_team_drops_out_what_one_process_would(digits, n, micro_batch):
    """Gradients of three processes add up to that of one, in pieces too, and where there are fewer images than they."""
    images = torch.from_numpy(digits[:n])
    alone, _ = gradient(perturbed(EDM()), images, None)
    total = torch.zeros_like(alone)
    for rank in range(3):
        model = perturbed(EDM(), team=Team(rank, 3))
        model.split_batches(micro_batch)
        total += gradient(model, images, None)[0]
    assert (total - alone).norm() < 1e-5 * alone.norm()


def test_a_fit_in_pieces_is_the_fit(digits):
    """Its weights to rounding, and to the bit where a batch is one piece; the last batch has another size."""
    data = TrainingSet.of(digits[:50])
    config = replace(CONFIG, n_images_initial=90)
    states = {}
    for micro_batch in (0, 16, 5):
        model = NetworkModel(EDM(), config)
        model.split_batches(micro_batch)
        states[micro_batch] = model.fit(data, seed=3).state_dict()
    for name, array in states[0].items():
        np.testing.assert_array_equal(states[16][name], array)
        np.testing.assert_allclose(states[5][name], array, rtol=1e-3, atol=2e-5)
    assert any((states[5][name] != array).any() for name, array in states[0].items())


@pytest.mark.parametrize("form", [torch.channels_last, torch.contiguous_format])
def test_dropout_by_index_has_the_masks_of_torch_on_the_whole_batch(form):
    x = torch.rand(12, 6, 4, 4).add(1).contiguous(memory_format=form)
    torch.manual_seed(0)
    first, second = F.dropout(x, 0.3), F.dropout(x, 0.3)
    found = []
    for rows in pieces(slice(0, 12), 5):
        torch.manual_seed(0)
        with DropoutByIndex(12, rows):
            found.append((F.dropout(x[rows], 0.3), F.dropout(x[rows], 0.3)))
            assert torch.equal(F.dropout(x[rows], 0.3, training=False), x[rows])
    for i, expected in enumerate((first, second)):
        torch.testing.assert_close(torch.cat([pair[i] for pair in found]), expected)


def allocated_at_most(call) -> int:
    """The most bytes that torch's allocator held above those of before, by torch's profiler."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        call()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    changes = np.array([event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())])
    return int(changes.cumsum().max())


@pytest.mark.parametrize(
    ("network", "precision"),
    [
        (NETWORK, "float32"),
        (NETWORK, "bfloat16"),
        (ADMConfig(resolution=8, colours=1, channels=32, multipliers=(1, 2), attention_resolutions=(4,)), "float32"),
        (DiffusersUNetConfig(resolution=8, colours=1, channels=32, multipliers=(1, 2)), "float32"),
    ],
)
def test_the_memory_of_a_step_is_known_before_it(digits, network, precision):
    """Against what torch's allocator really gave out, on a CPU: within 5 %."""
    labels = getattr(network, "augment_labels", 0)
    config = replace(CONFIG, network=network, precision=precision, augment_probability=0.3 if labels else 0.0)
    model = perturbed(EDM(), replace(config, batch_size=64))
    x, numbers = torch.rand(64, 1, 8, 8).contiguous(memory_format=torch.channels_last), torch.rand(64)

    def step():
        net = model._net()
        with DropoutByIndex(64, slice(0, 64)):
            net = (lambda x, level: model._net()(x, level, torch.zeros(64, labels))) if labels else net
            model.process.loss_terms(net, x, numbers, torch.zeros_like(x)).mean().backward()

    step()  # what is made once, such as tables of kernels, is there then
    n_weights = len(model._flat)
    expected = training_bytes(model.process, model.config) - memory.BUFFERS * 4 * n_weights
    assert allocated_at_most(step) == pytest.approx(expected, rel=0.05)


def test_the_published_networks_take_what_was_measured():
    """The figures that the book and the README name, in GB."""
    cifar10 = replace(CONFIG, network=UNetConfig(), batch_size=256)
    assert training_bytes(EDM(), cifar10) / 1e9 == pytest.approx(32.2, abs=0.1)


@pytest.fixture
def of_thousands(monkeypatch) -> None:
    """A step takes 1000 bytes, and 100 more for each image."""
    monkeypatch.setattr(memory, "training_bytes", lambda process, training, n: 1000 + 100 * n)


@pytest.mark.parametrize(
    ("n_bytes", "expected"),
    [(2600, 16), (2599, 8), (1800, 8), (1799, 6), (1599, 4), (1100, 1)],  # fewest pieces, all of about one size
)
def test_pieces_are_as_large_as_the_memory_allows(of_thousands, n_bytes, expected):
    assert images_that_fit(EDM(), CONFIG, 16, n_bytes) == expected


def test_a_network_too_large_for_one_image_is_refused(of_thousands):
    with pytest.raises(ConfigError, match=r"one image at a time takes more memory than the device has: about 0.0 GB"):
        images_that_fit(EDM(), CONFIG, 16, 1099)


def test_on_a_gpu_the_free_memory_decides_for_the_share_of_each_process(of_thousands, monkeypatch):
    model = NetworkModel(EDM(), CONFIG, team=Team(0, 2))
    assert chosen_micro_batch("auto", model, lambda: 10, 64) == 0
    assert chosen_micro_batch(3, model, lambda: 10, 64) == 3
    model.device = torch.device("cuda")  # a pretended one
    for needed, expected in ((1800 + 640, 8), (1800 + 639, 4)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, n=needed: (n / memory.USABLE + 0.1, 0))
        assert chosen_micro_batch("auto", model, lambda: 10, 64) == expected


def test_a_run_in_pieces_has_the_same_id_and_the_manifest_says_so(tmp_path):
    given = TINY_RUN | {"n_retrain": 0, "n_real": 100, "n_images_initial": 64, "device": "cpu"}
    runs = {}
    for micro_batch in ("auto", 10):
        experiment = open_experiment(run_dir=tmp_path / str(micro_batch), micro_batch=micro_batch, **given)
        list(experiment.records())
        runs[micro_batch] = experiment.run
    assert runs[10].config.run_id == runs["auto"].config.run_id
    for micro_batch, recorded in (("auto", 0), (10, 10)):
        assert read_manifest(runs[micro_batch].path)["attempts"][-1]["micro_batch"] == recorded
    a, b = (run.load_state() for run in runs.values())
    for name, array in a.items():
        np.testing.assert_allclose(b[name], array, rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "all", None])
def test_impossible_sizes_of_pieces_are_refused(value, tmp_path):
    with pytest.raises(ConfigError, match=r"micro_batch = .* is not allowed: how many images .* or 'auto'"):
        open_experiment(n_retrain=0, micro_batch=value, run_dir=tmp_path / "run")
    assert "micro_batch" not in RunConfig.__dataclass_fields__
