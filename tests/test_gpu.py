"""On a GPU as on a CPU: networks, fits, samples, pieces, graphs, precision, memory. ``pytest -m gpu`` is for the GPU.

What can be asked of a CPU too is asked of it, so that the tests themselves are tried where there is no GPU.
"""

import gc
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch

from iterative_retraining.distributed import set_float32
from iterative_retraining.experiment import open_experiment
from iterative_retraining.models import checkpoints
from iterative_retraining.models.ddpm import DDPM
from iterative_retraining.models.edm import EDM
from iterative_retraining.models.fitting import TrainingConfig
from iterative_retraining.models.flow_matching import FlowMatching
from iterative_retraining.models.memory import training_bytes
from iterative_retraining.models.networks.ddpmpp import GroupNorm, UNetConfig
from iterative_retraining.models.networks.foreign import ADMConfig, DiffusersUNetConfig
from iterative_retraining.models.training import NetworkModel
from iterative_retraining.models.transfer import HostCopies
from iterative_retraining.runs.reading import read_ledger, read_manifest
from iterative_retraining.training_set import TrainingSet

from conftest import DEVICES, TINY_RUN

SIZE = {"resolution": 8, "colours": 1, "multipliers": (1, 2)}
NETWORK = UNetConfig(**SIZE, channels=8, blocks_per_level=1, attention_resolutions=(4,), dropout=0.2, augment_labels=9)
OTHERS = [ADMConfig(**SIZE, channels=32, attention_resolutions=(4,)), DiffusersUNetConfig(**SIZE, channels=32)]
CONFIG = TrainingConfig(
    network=NETWORK, n_images_initial=104, n_images_per_retraining=72, batch_size=16, augment_probability=0.3,
    keep_optimizer=True, sampling_batch_size=8, ema_halflife_images=20,
)  # fmt: skip
PROCESSES = [EDM(n_steps=4), FlowMatching(n_steps=3), DDPM(n_steps=4), DDPM(n_steps=4, solver="ancestral_posterior")]


@pytest.fixture(autouse=True)
def _float32() -> Iterator[None]:
    """As in a run; kernels that are the same in every call, where torch has them."""
    modules = torch.backends.cuda.matmul, torch.backends.cudnn
    before, deterministic = [module.allow_tf32 for module in modules], torch.backends.cudnn.deterministic
    set_float32("cuda")
    torch.backends.cudnn.deterministic = True
    yield
    torch.backends.cudnn.deterministic = deterministic
    for module, value in zip(modules, before, strict=True):
        module.allow_tf32 = value


def model_on(device: str, process=PROCESSES[0], config=CONFIG, **settings) -> NetworkModel:
    """With weights that are the same on every device, none of them zero."""
    model = NetworkModel(process, config, device, **settings)
    model._new_network(0)
    with torch.no_grad():
        for p in model.net.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())).to(device))
    return model


def distance(names: Iterable[str], a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray] | None = None) -> float:
    """Between all arrays of these names; of ``a`` from 0 if there is no ``b``."""
    gaps = (a[name].astype(float) - (0 if b is None else b[name]) for name in names)
    return float(np.sqrt(sum(np.square(gap).sum() for gap in gaps)))


def close(model: NetworkModel, expected: NetworkModel) -> None:
    """Weights, within a fiftieth of the way that they have gone, and Adam's moments, within a fiftieth of their size.

    On a CPU rounding does less than 1e-4 of that, and another seed, for noise and masks of dropout, nearly all of it.
    """
    found, wanted, start = (one.state_dict() for one in (model, expected, model_on(str(model.device))))
    assert found.keys() == wanted.keys()
    assert distance(start, found, wanted) < 0.02 * distance(start, wanted, start)
    for kind in ("carried/exp_avg/", "carried/exp_avg_sq/"):
        names = [name for name in wanted if name.startswith(kind)]
        assert distance(names, found, wanted) < 0.02 * distance(names, wanted)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("network", [NETWORK, *OTHERS])
@pytest.mark.parametrize("process", PROCESSES[:3])
def test_loss_and_gradients_are_those_of_a_cpu(digits, process, network, device):
    """In float64 there, but for DDPM and the networks of others, which have levels of float32."""
    kind = torch.float64 if network is NETWORK and not isinstance(process, DDPM) else torch.float32
    config = replace(CONFIG, network=replace(network, dropout=0.0), augment_probability=0.0)
    model, exact = model_on(device, process, config), model_on("cpu", process, config)
    exact.net.to(kind)
    x = torch.from_numpy(digits[:12]).permute(0, 3, 1, 2).float() / 127.5 - 1
    rng = torch.Generator().manual_seed(1)
    level_noise, noise = torch.randn(12, generator=rng), torch.randn(x.shape, generator=rng)
    loss = process.loss_terms(model._net(), *(one.to(device) for one in (x, level_noise, noise))).mean()
    expected = process.loss_terms(exact.net, *(one.to(kind) for one in (x, level_noise, noise))).mean()
    loss.backward()
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    for (name, p), q in zip(model.net.named_parameters(), exact.net.parameters(), strict=True):
        assert (p.grad.cpu() - q.grad).norm() <= 1e-3 * q.grad.norm() + 1e-6, name


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("process", [*PROCESSES, FlowMatching(solver="dopri5", tolerance=1e-3)])
def test_samples_are_those_of_a_cpu(process, device):
    """By index, to one level of 255; whole batches and a rest."""
    found, expected = model_on(device, process).sample(19, seed=3), model_on("cpu", process).sample(19, seed=3)
    assert np.abs(found.astype(int) - expected).max() <= 1
    assert expected.std() > 10


class Killed(Exception):
    pass


class Memory:
    """Keeps the last state that was saved."""

    def __init__(self) -> None:
        self.in_fit, self.stop, self.kept = False, None, None

    def load_fit(self, seed):
        return self.kept

    def save_fit(self, seed, state):
        self.kept = {name: array.copy() for name, array in state.items()}


@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize("device", DEVICES)
def test_a_killed_fit_goes_on_to_the_same_weights(digits, device, graphs):
    """Noise, dropout and augmentation included."""
    data, store = TrainingSet.of(digits[:50]), Memory()
    whole = model_on(device).fit(data, seed=1)

    def killed(n_seen, n_images):
        if n_seen == 48:
            raise Killed

    for progress in (killed, None):
        model = model_on(device)
        if graphs:
            model.replay_graphs()
        model.keep_fits(store, 16)
        try:
            model.fit(data, seed=1, progress=progress)
        except Killed:
            continue
    assert int(store.kept["n_seen"]) >= 32
    close(model, whole)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("settings", [{"micro_batch": 6}, {"graphs": True}, {"micro_batch": 6, "graphs": True}])
def test_pieces_and_graphs_change_nothing(digits, device, settings):
    """Fits that hand on Adam's moments, with weights of images and a last batch that is smaller; and samples."""
    data = TrainingSet((digits[:40], digits[40:60]), (np.arange(40), np.arange(20)), (1.0, 3.0))
    plain, other = model_on(device), model_on(device)
    other.split_batches(settings.get("micro_batch", 0))
    if settings.get("graphs"):
        other.replay_graphs()
    for seed in (1, 2):
        plain.fit(data, seed=seed)
        other.fit(data, seed=seed)
    close(other, plain)
    found, expected = (model.sample(19, seed=3).astype(int) for model in (other, plain))
    assert np.mean(np.abs(found - expected) > 1) < 0.01  # by weights that differ in rounding


@pytest.mark.gpu
def test_a_graph_is_what_runs(digits):
    """Convolutions are started to record it, 4 times, and for the rest of a fit; without it in each of 41 steps."""
    starts, config = [], replace(CONFIG, n_images_per_retraining=16 * 40 + 8)
    for graphs in (False, True):
        model = model_on("cuda", config=config)
        if graphs:
            model.replay_graphs()
        model.fit(TrainingSet.of(digits[:50]), seed=1)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            model.fit(TrainingSet.of(digits[:50]), seed=2)
        names = [event.name for event in profile.events()]
        starts.append(sum(name == "aten::convolution" for name in names))
    assert starts[0] / 41 == starts[1] / 5 > 0


@pytest.mark.gpu
@pytest.mark.parametrize("graphs", [False, True])
def test_steps_do_not_wait_for_the_gpu(digits, graphs):
    """By torch's own watch over synchronisations, from the third step on to the last but one."""
    config = replace(CONFIG, n_images_per_retraining=16 * 80)
    model = NetworkModel(EDM(), config, "cuda").fit(TrainingSet.of(digits[:50]), seed=0)
    model.split_batches(10)
    if graphs:
        model.replay_graphs()

    def watch(n_seen, n_images):
        if n_seen == 16 * 2:
            torch.cuda.set_sync_debug_mode("error")
        if n_seen == 16 * 79:
            torch.cuda.set_sync_debug_mode("default")

    try:
        model.fit(TrainingSet.of(digits[:50]), seed=1, progress=watch)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("device", DEVICES)
def test_float32_is_float32(device):
    a, b = (torch.randn(256, 256, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    exact = a.double() @ b.double()
    assert ((a.to(device) @ b.to(device)).cpu() - exact).abs().max() < 1e-5 * exact.abs().max()
    image, kernel = a.view(1, 16, 64, 64), b[:32, :144].reshape(32, 16, 3, 3)
    exact = torch.nn.functional.conv2d(image.double(), kernel.double())
    found = torch.nn.functional.conv2d(image.to(device), kernel.to(device)).cpu()
    assert (found - exact).abs().max() < 1e-5 * exact.abs().max()


@pytest.mark.parametrize("device", DEVICES)
def test_bfloat16_stays_bfloat16_through_norms_and_is_near_float32(digits, device):
    half, full = model_on(device, config=replace(CONFIG, precision="bfloat16")), model_on(device)
    seen = []
    for module in half.net.modules():
        if isinstance(module, GroupNorm):
            module.register_forward_hook(lambda module, given, found: seen.append((given[0].dtype, found.dtype)))
    x = torch.from_numpy(digits[:8]).permute(0, 3, 1, 2).float().to(device) / 127.5 - 1
    for model in (half, full):
        model.net.eval()
    found, expected = (m._net()(x, torch.linspace(-1, 1, 8).to(device), None) for m in (half, full))
    assert set(seen) == {(torch.bfloat16, torch.bfloat16)}
    assert (found.dtype, expected.dtype) == (torch.float32, torch.float32)
    assert 0 < (found - expected).norm() < 0.03 * expected.norm()
    half.fit(TrainingSet.of(digits[:50]), seed=0)
    assert all(array.dtype == np.float32 for array in half.state_dict().values() if array.ndim)


@pytest.mark.parametrize("device", DEVICES)
def test_copies_are_as_the_tensors_were(device):
    tensor = torch.arange(2.0e6, device=device)
    copies = HostCopies({"a": tensor, "b": tensor[:5]})
    tensor.zero_()
    found = copies.tensors()
    assert found["a"].device.type == "cpu"
    assert torch.equal(found["a"], torch.arange(2.0e6))
    assert found["b"].tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("n_at_once", [32, 64])
def test_memory_is_what_was_counted(precision, n_at_once, monkeypatch):
    """The published network of CIFAR-10: within 10 %."""
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)  # as in a run
    images = np.zeros((128, 32, 32, 3), np.uint8)
    config = replace(CONFIG, network=UNetConfig(), precision=precision, batch_size=64, n_images_initial=128)
    model = NetworkModel(EDM(), config, "cuda")
    model.split_batches(n_at_once)
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    model.fit(TrainingSet.of(images), seed=0)
    taken = torch.cuda.max_memory_allocated() - before
    assert taken == pytest.approx(training_bytes(model.process, config, n_at_once), rel=0.1)


@pytest.mark.gpu
@pytest.mark.filterwarnings("default")  # the compiler's advice
def test_compiled_code_trains_and_samples_the_same(digits):
    config = replace(CONFIG, network=replace(NETWORK, dropout=0.0), n_images_per_retraining=64)
    plain, compiled = model_on("cuda", config=config), model_on("cuda", config=replace(config, compile=True))
    for model in (plain, compiled):
        model.fit(TrainingSet.of(digits[:50]), seed=1)
    close(compiled, plain)
    assert np.mean(np.abs(compiled.sample(8, seed=3).astype(int) - plain.sample(8, seed=3)) > 1) < 0.01


@pytest.mark.parametrize("device", DEVICES)
def test_a_run_that_is_stopped_goes_on(tmp_path, device, monkeypatch):
    """All of it: metrics, checkpoints, graphs where there is a GPU, and what the manifest says of that."""
    monkeypatch.setattr(checkpoints, "monotonic", iter(np.arange(1e6)).__next__)  # a second between any two looks
    given = TINY_RUN | {"device": device, "cuda_graphs": True, "checkpoint_minutes": 0.1, "n_retrain": 1, "n_real": 100}
    whole = open_experiment(run_dir=tmp_path / "whole", **given)
    for _ in whole.records():
        pass

    def killed(generation, n_seen, n_images):
        if (generation, n_seen) == (1, 160):
            raise Killed

    stopped = open_experiment(run_dir=tmp_path / "stopped", **given)
    with pytest.raises(Killed):
        list(stopped.records(killed))
    stopped.run.close()
    list(open_experiment(run_dir=tmp_path / "stopped", **given).records())
    rows, expected = (read_ledger(tmp_path / name) for name in ("stopped", "whole"))
    assert [row["n_images"] for row in rows] == [row["n_images"] for row in expected]
    for row, other in zip(rows, expected, strict=True):
        assert row["fid"] == pytest.approx(other["fid"], rel=0.02)
    attempt = read_manifest(tmp_path / "stopped")["attempts"][-1]
    assert (attempt.get("cuda_graphs"), attempt.get("tf32")) == ((True, False) if device == "cuda" else (None, None))
