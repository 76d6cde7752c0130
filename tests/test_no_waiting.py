"""A step of training on a GPU never waits for the host, nor the host for it: the path of a GPU, walked on a CPU."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from iterative_retraining.models import training
from iterative_retraining.models.augment import augment
from iterative_retraining.models.ddpm import DDPM
from iterative_retraining.models.edm import EDM
from iterative_retraining.models.fitting import TrainingConfig
from iterative_retraining.models.flow_matching import FlowMatching
from iterative_retraining.models.networks.ddpmpp import UNetConfig
from iterative_retraining.models.training import NetworkModel
from iterative_retraining.training_set import TrainingSet

NETWORK = UNetConfig(
    resolution=8, colours=1, channels=8, multipliers=(1, 2), blocks_per_level=1, attention_resolutions=(4,),
    dropout=0.2, augment_labels=9,
)  # fmt: skip
CONFIG = TrainingConfig(
    network=NETWORK, n_images_initial=16, n_images_per_retraining=96, batch_size=16, augment_probability=0.3,
    keep_optimizer=True,
)  # fmt: skip
WAITING = ("_local_scalar_dense", "nonzero", "is_nonzero", "masked_select", "equal", "unique")  # of aten
READING = ("item", "tolist", "numpy", "cpu", "to", "cuda", "__bool__", "__float__", "__int__", "__index__", "nonzero")


class Kernels(TorchDispatchMode):
    """The kernels called inside whose results, or their shapes, the host has to look at."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__.rstrip("_")
        masks = name in ("index", "index_put") and any(m is not None and m.dtype == torch.bool for m in args[1])
        if masks or name.startswith(WAITING):
            self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


class Reads(TorchFunctionMode):
    """The methods called inside by which a number, or a tensor, goes from one device to another."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        places = [a for a in (*args[1:], *kwargs.values()) if isinstance(a, str | torch.device)]
        if name in READING and isinstance(args[0], Tensor) and (name != "to" or places):
            self.seen.append(name)
        return func(*args, **kwargs)


def watched(process, data, monkeypatch, n_images=96, config=CONFIG) -> tuple[list[str], int]:
    """What waits in a fit of a model that takes its device for a GPU, and how many uploads there were."""
    uploads = []

    def upload(array, device):
        uploads.append(array)
        return torch.from_numpy(np.array(array))

    monkeypatch.setattr(training, "upload", upload)
    model = NetworkModel(process, replace(config, n_images_per_retraining=n_images))
    model.fit(data, seed=0)
    model._on_gpu = True
    model.split_batches(10)
    uploads.clear()
    with Kernels() as kernels, Reads() as reads:
        model.fit(data, seed=1)
    return [*kernels.seen, *reads.seen], len(uploads)


@pytest.mark.parametrize("process", [EDM(), FlowMatching(coupling="independent"), DDPM()])
def test_steps_on_a_gpu_do_not_wait(digits, process, monkeypatch):
    """What a longer fit has more of: nothing but an upload of the images' indices a step, by pinned memory.

    All else, as the losses that are read after the last step and what the next fit is handed, comes once.
    """
    data = TrainingSet.of(digits[:40])
    short, few = watched(process, data, monkeypatch, n_images=32)
    long, many = watched(process, data, monkeypatch, n_images=96)
    assert long == short
    assert many - few == 4


def test_weights_of_images_are_uploaded_too(digits, monkeypatch):
    data = TrainingSet((digits[:40], digits[40:60]), (np.arange(40), np.arange(20)), (1.0, 3.0))
    short, few = watched(EDM(), data, monkeypatch, n_images=32)
    long, many = watched(EDM(), data, monkeypatch, n_images=96)
    assert long == short
    assert many - few == 8


def test_the_watch_sees_what_waits():
    with Kernels() as kernels, Reads() as reads:
        x = torch.arange(4.0)
        float(x[0])
        x[x > 1] = 0
        x.nonzero()
        x.to("cpu")
        x.to(torch.float64)
        if x.sum() > 3:
            x += 1
    assert sum("_local_scalar_dense" in name for name in kernels.seen) == 2
    assert any("index_put" in name or "nonzero" in name for name in kernels.seen)
    assert reads.seen.count("to") == 1


def test_augmentation_without_a_look_gives_the_same_images(digits):
    x = torch.from_numpy(digits[:64]).permute(0, 3, 1, 2).float() / 127.5 - 1
    looking, labels = augment(x, torch.Generator().manual_seed(0), 0.3)
    blind, same_labels = augment(x, torch.Generator().manual_seed(0), 0.3, looks=False)
    assert torch.equal(labels, same_labels)
    torch.testing.assert_close(blind, looking, rtol=0, atol=1e-6)


def test_losses_read_late_still_name_the_step(digits):
    """On a GPU they are read when as many others have followed."""
    model = NetworkModel(EDM(), replace(CONFIG, n_images_initial=16 * 80))
    model._on_gpu = True
    steps = []

    def poison(n_seen, n_images):
        steps.append(n_seen)
        if n_seen == 16 * 5:
            with torch.no_grad():
                model._flat.fill_(float("nan"))

    with pytest.raises(FloatingPointError, match=r"the loss is nan at step 5 \(1024 of 1280 images\)"):
        model.fit(TrainingSet.of(digits[:40]), seed=0, progress=poison)
    assert steps[-1] == 16 * 63  # sent after 32 steps, read after 64
