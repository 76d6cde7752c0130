"""CUDA graphs: on a CPU all but the recording, where a replay is a call on the tensors that it would replay on."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from iterative_retraining.config import RunConfig
from iterative_retraining.distributed import Team
from iterative_retraining.errors import ConfigError
from iterative_retraining.experiment import open_experiment
from iterative_retraining.models.ddpm import DDPM
from iterative_retraining.models.edm import EDM
from iterative_retraining.models.fitting import TrainingConfig
from iterative_retraining.models.flow_matching import FlowMatching
from iterative_retraining.models.graphs import Graphs, chosen_graphs
from iterative_retraining.models.networks.ddpmpp import UNetConfig
from iterative_retraining.models.spline_flow import MaximumLikelihood, SplineFlowConfig
from iterative_retraining.models.training import NetworkModel
from iterative_retraining.runs.reading import read_manifest
from iterative_retraining.training_set import TrainingSet

from conftest import TINY_RUN

NETWORK = UNetConfig(
    resolution=8, colours=1, channels=4, multipliers=(1, 2), blocks_per_level=1, attention_resolutions=(4,),
    dropout=0.2, augment_labels=9,
)  # fmt: skip
CONFIG = TrainingConfig(
    network=NETWORK, n_images_initial=90, n_images_per_retraining=60, batch_size=16, augment_probability=0.3,
    keep_optimizer=True, sampling_batch_size=5,
)  # fmt: skip
CPU = torch.device("cpu")


def made(process, config, data, *, graphs, micro_batch=0):
    """State, samples and graphs used of a model that was fitted twice."""
    model, used = NetworkModel(process, config), []
    model.split_batches(micro_batch)
    if graphs:
        model.replay_graphs()
    for seed in (0, 1):
        model.fit(data, seed=seed, progress=lambda *_: used.append(len(model._graphs._graphs) if graphs else 0))
    return model.state_dict(), model.sample(13, seed=2), used


@pytest.mark.parametrize("process", [EDM(n_steps=3), FlowMatching(n_steps=2), DDPM(n_steps=3)])
def test_replays_give_the_bits_of_single_calls(digits, process):
    """With augmentation, dropout, weights of images, and a last batch that is smaller."""
    data = TrainingSet((digits[:40], digits[40:60]), (np.arange(40), np.arange(20)), (1.0, 3.0))
    state, samples, _ = made(process, CONFIG, data, graphs=False)
    replayed, same_samples, used = made(process, CONFIG, data, graphs=True)
    assert set(used) == {1}  # none for the rest of a fit
    for name, array in state.items():
        np.testing.assert_array_equal(replayed[name], array, err_msg=name)
    np.testing.assert_array_equal(same_samples, samples)


def test_every_piece_has_a_graph(digits):
    """To rounding: a tensor of its own begins elsewhere in memory than a piece of a batch, and is summed otherwise."""
    data = TrainingSet.of(digits[:50])
    state, _, _ = made(EDM(n_steps=3), CONFIG, data, micro_batch=6, graphs=False)
    replayed, _, used = made(EDM(n_steps=3), CONFIG, data, micro_batch=6, graphs=True)
    assert set(used) == {3}
    for name, array in state.items():
        np.testing.assert_allclose(replayed[name], array, rtol=1e-3, atol=2e-5, err_msg=name)


def test_graphs_go_when_a_fit_ends(digits):
    model = NetworkModel(EDM(), CONFIG)
    model.replay_graphs()
    assert model.fit(TrainingSet.of(digits[:40]), seed=0)._graphs is None


def test_a_graph_works_on_tensors_of_its_own():
    seen = []

    def product(x, factor, nothing):
        seen.append((x.data_ptr(), factor.data_ptr(), nothing))
        return x * factor

    graphs, total = Graphs(CPU), torch.zeros(())
    x = torch.rand(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    weight = torch.rand(3, 1, 1, requires_grad=True)
    weight.grad = torch.ones_like(weight)
    for k in (1.0, 2.0, 3.0):
        graph = graphs.of_gradients("a", lambda *given: (product(*given) * weight).sum(), (x, x, None), weight.grad)
        found = graph(k * x, x, None)
        assert not found.requires_grad
        total += found
    torch.testing.assert_close(total, 6 * (x * x * weight).sum().detach())
    torch.testing.assert_close(weight.grad, 1 + 6 * (x * x).sum(dim=(0, 2, 3))[:, None, None])
    assert len(set(seen)) == 1
    assert x.data_ptr() not in seen[0]
    assert graph._inputs[0].stride() == x.stride()
    with pytest.raises(RuntimeError, match="size"):
        graph(x[:, :2], x, None)


def test_a_net_of_a_graph_gives_tensors_of_their_own():
    net = Graphs(CPU).of_net(lambda x, level: x.mul_(level))
    ones, level = torch.ones(3), torch.full((3,), 2.0)
    first = net(ones, level)
    second = net(ones, 2 * level)
    assert (first.tolist(), second.tolist(), ones.tolist()) == ([2.0] * 3, [4.0] * 3, [1.0] * 3)


def test_a_team_replays_its_shares(digits):
    images = torch.from_numpy(digits[:16])
    totals = []
    for graphs in (None, Graphs):
        model = NetworkModel(EDM(), CONFIG, team=Team(1, 3))
        model._new_network(0)
        model._graphs = graphs and graphs(CPU)
        for part in model._losses(images, torch.Generator().manual_seed(0), dropout=7):
            if part.requires_grad:
                part.backward()
        totals.append(model._flat.grad.clone())
    assert (totals[1] - totals[0]).norm() < 1e-5 * totals[0].norm()


def test_they_are_for_networks_on_a_gpu():
    model = NetworkModel(EDM(), CONFIG)
    flow = NetworkModel(MaximumLikelihood(), replace(CONFIG, augment_probability=0.0, network=SplineFlowConfig()))
    assert not chosen_graphs(True, model)
    model.device = flow.device = torch.device("cuda")  # pretended ones
    assert chosen_graphs(True, model)
    assert not chosen_graphs(False, model)
    assert not chosen_graphs(True, flow)
    assert not chosen_graphs(True, object())


def test_a_run_on_a_cpu_does_without_and_is_the_same_run(tmp_path):
    given = TINY_RUN | {"n_retrain": 0, "n_real": 100, "n_images_initial": 64, "device": "cpu"}
    experiment = open_experiment(run_dir=tmp_path / "run", cuda_graphs=True, **given)
    assert not experiment.cuda_graphs
    assert "cuda_graphs" not in read_manifest(experiment.run.path)["attempts"][-1]
    assert "cuda_graphs" not in RunConfig.__dataclass_fields__
    with pytest.raises(ConfigError, match=r"cuda_graphs = 'yes' is not allowed: true replays .* on a GPU"):
        open_experiment(n_retrain=0, cuda_graphs="yes", run_dir=tmp_path / "other")
