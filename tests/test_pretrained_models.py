"""Files in the layout of NVIDIA's pickles, written here with stand-ins for the classes they name."""

import builtins
import collections
import os
import pickle
import sys
import time
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from iterative_retraining.errors import ConfigError, PretrainedError
from iterative_retraining.experiment import open_experiment
from iterative_retraining.models.edm import precondition
from iterative_retraining.models.networks.ddpmpp import UNetConfig
from iterative_retraining.models.pretrained import load_edm_pickle, read_weights
from iterative_retraining.models.pretrained.edm import _names
from iterative_retraining.runs.origin import init_identity

from conftest import TINY_EDM, Calls

NETWORK = UNetConfig(
    resolution=8, colours=1, channels=4, multipliers=(1, 2), blocks_per_level=1, attention_resolutions=(4,),
    dropout=0.0, augment_labels=3,
)  # fmt: skip
KEYWORDS = {
    "model_type": "SongUNet",
    "embedding_type": "positional",
    "encoder_type": "standard",
    "decoder_type": "standard",
    "channel_mult_noise": 1,
    "resample_filter": [1, 1],
    "model_channels": 4,
    "channel_mult": [1, 2],
    "num_blocks": 1,
    "attn_resolutions": [4],
    "dropout": 0.0,
    "augment_dim": 3,
}


class Persistent:
    """Pickles as torch_utils.persistence does: a call of one function with a mapping, source code included."""

    def __init__(self, class_name: str, **state) -> None:
        self.meta = {
            "type": "class",
            "version": 6,
            "module_src": "raise RuntimeError('the source in a file of weights was executed')",
            "class_name": class_name,
            "state": state,
        }

    def __reduce__(self):
        return sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj, (self.meta,)


def module(class_name: str, tensors: dict, children: dict, **more) -> Persistent:
    parameters = {name: torch.nn.Parameter(t) for name, t in tensors.items()}
    hooks = {name: collections.OrderedDict() for name in ("_backward_hooks", "_forward_hooks")}
    state = {"training": False, "_parameters": parameters, "_buffers": {}, "_modules": children, **hooks}
    return Persistent(class_name, **state, _non_persistent_buffers_set=set(), **more)


def tree(tensors: dict) -> dict:
    """Dotted names to nested modules; the two dictionaries of blocks are torch's own class, as in the real files."""
    groups = collections.defaultdict(dict)
    for name, tensor in tensors.items():
        head, _, rest = name.partition(".")
        groups[head][rest] = tensor
    children = {}
    for name, inside in groups.items():
        if name in ("enc", "dec"):
            children[name] = torch.nn.ModuleDict()
            children[name]._modules.update(tree(inside))
        else:
            own = {key: value for key, value in inside.items() if "." not in key}
            children[name] = module("Layer", own, tree({k: v for k, v in inside.items() if "." in k}))
    return children


@pytest.fixture
def stand_ins(monkeypatch):
    """torch_utils.persistence, as far as pickling needs it to be there."""
    package, persistence = types.ModuleType("torch_utils"), types.ModuleType("torch_utils.persistence")

    def _reconstruct_persistent_obj(meta):
        raise AssertionError("reading must not come here")

    _reconstruct_persistent_obj.__module__ = "torch_utils.persistence"
    _reconstruct_persistent_obj.__qualname__ = "_reconstruct_persistent_obj"
    persistence._reconstruct_persistent_obj = _reconstruct_persistent_obj
    package.persistence = persistence
    monkeypatch.setitem(sys.modules, "torch_utils", package)
    monkeypatch.setitem(sys.modules, "torch_utils.persistence", persistence)


@pytest.fixture
def written(tmp_path, stand_ins):
    """A writer of such files: its weights by their published names, and the path."""

    def write(
        network=NETWORK,
        name="EDMPrecond",
        keywords=KEYWORDS,
        change=lambda tensors: None,
        key="ema",
        label_dim=0,
        **more,
    ):
        rng = torch.Generator().manual_seed(0)
        ours = network.build().state_dict()
        tensors = {a: torch.randn(ours[b].shape, generator=rng) for a, b in _names(network) if b in ours}
        change(tensors)
        net = module("SongUNet", {}, tree({name.removeprefix("model."): t for name, t in tensors.items()}))
        state = {"img_resolution": network.resolution, "img_channels": network.colours, "label_dim": label_dim}
        state |= {"sigma_data": 0.5, "_init_args": (), "_init_kwargs": keywords} | more
        path = tmp_path / "network.pkl"
        content = {
            key: module(name, {}, {"model": net}, **state),
            "dataset_kwargs": {"class_name": "ImageFolderDataset"},
        }
        content |= {"loss_fn": Persistent("EDMLoss", P_mean=-1.2), "augment_pipe": Persistent("AugmentPipe", p=0.12)}
        path.write_bytes(pickle.dumps(content))
        return tensors, path

    return write


def test_a_file_in_the_published_layout_round_trips(written):
    tensors, path = written()
    found = load_edm_pickle(path)
    assert found.network == NETWORK
    for theirs, ours in _names(NETWORK):
        if theirs in tensors and ".qkv." not in theirs:
            np.testing.assert_array_equal(found.state[ours], tensors[theirs])
    assert len(found.state) == len(tensors)
    name = "model.enc.4x4_block0.qkv.weight"  # rows c 3 + j in the file: query, key and value of each channel c
    rows = tensors[name].view(8, 3, 8, 1, 1)
    np.testing.assert_array_equal(found.state["encoder.2.attention.qkv.weight"], torch.cat([*rows.unbind(1)]))


def test_the_network_is_a_denoiser(written):
    _, path = written()
    found = load_edm_pickle(path)
    net = found.net
    x, sigma = torch.randn(3, 1, 8, 8), torch.tensor([0.1, 1.0, 10.0])
    torch.testing.assert_close(found(x, sigma), precondition(net, x, sigma, 0.5))
    assert not net.training


def test_the_published_configurations_have_names_for_every_weight():
    cifar10 = UNetConfig()
    ffhq64 = UNetConfig(resolution=64, multipliers=(1, 2, 2, 2), dropout=0.05)
    for config in (cifar10, ffhq64):
        with torch.device("meta"):
            wanted = set(config.build().state_dict())
        ours = [b for _, b in _names(config) if b in wanted]
        assert set(ours) == wanted
        assert len(ours) == len(set(ours))


@pytest.mark.parametrize(
    ("hostile", "named"),
    [
        (Calls(os.system, "touch executed"), "posix.system"),
        (Calls(builtins.eval, "open('executed', 'w')"), "builtins.eval"),
        (Calls(builtins.getattr, os, "system"), "builtins.getattr"),
        (Calls(torch.load, "executed"), "torch.serialization.load"),
    ],
)
def test_a_hostile_pickle_is_refused_by_name_and_runs_nothing(tmp_path, monkeypatch, hostile, named):
    monkeypatch.chdir(tmp_path)
    if named == "builtins.getattr":
        hostile = Calls(builtins.getattr, "text", "upper")
    Path("bad.pkl").write_bytes(pickle.dumps({"ema": hostile}))
    with pytest.raises(
        PretrainedError, match=rf"bad.pkl is refused: it asks for {named}, .*nothing of it was executed"
    ):
        load_edm_pickle("bad.pkl")
    assert not Path("executed").exists()


def test_code_inside_a_tensors_bytes_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    inner = pickle.dumps(Calls(os.system, "touch executed"), protocol=2)  # the protocol that torch writes
    Path("bad.pkl").write_bytes(pickle.dumps({"ema": Calls(torch.storage._load_from_bytes, inner)}))
    with pytest.raises(PretrainedError, match=r"bad\.pkl is damaged, or no pickle of an EDM network"):
        load_edm_pickle("bad.pkl")
    assert not Path("executed").exists()


def test_other_files_are_refused_with_the_reason(written, tmp_path):
    with pytest.raises(PretrainedError, match=r"nothing\.pkl is not there"):
        load_edm_pickle(tmp_path / "nothing.pkl")
    (tmp_path / "short.pkl").write_bytes(written()[1].read_bytes()[:2000])
    with pytest.raises(PretrainedError, match=r"short\.pkl is damaged.*it seems to be a pickle whose end is missing"):
        load_edm_pickle(tmp_path / "short.pkl")
    with pytest.raises(PretrainedError, match="holds no network under the key 'ema', but: 'net'"):
        load_edm_pickle(written(key="net")[1])
    with pytest.raises(PretrainedError, match="it holds a VPPrecond; only EDMPrecond can be read"):
        load_edm_pickle(written(name="VPPrecond")[1])
    with pytest.raises(PretrainedError, match=r"encoder_type = 'residual' is not DDPM.*it seems to be NCSN"):
        load_edm_pickle(written(keywords=KEYWORDS | {"encoder_type": "residual"})[1])
    with pytest.raises(PretrainedError, match=r"a class-conditional network \(label_dim = 10\); wanted is one without"):
        load_edm_pickle(written(label_dim=10)[1])

    def drop(tensors):
        del tensors["model.map_layer1.bias"]

    with pytest.raises(
        PretrainedError, match=r"its weights are not those of its configuration: embed\.2\.bias differs"
    ):
        load_edm_pickle(written(change=drop)[1])
    with pytest.raises(PretrainedError, match="its weights are not those of its configuration"):
        load_edm_pickle(written(keywords=KEYWORDS | {"model_channels": 8})[1])


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"num_blocks": 10**9}, "1000000000"),
        ({"model_channels": 10**12}, "1000000000000"),
        ({"channel_mult": [10**9]}, "1000000000"),
        ({"channel_mult": [1] * 10_000}, "cannot be halved 9999 times"),
    ],
)
def test_a_file_that_claims_a_network_without_end_is_refused_in_an_instant(written, keywords, message):
    path, start = written(keywords=KEYWORDS | keywords)[1], time.process_time()
    with pytest.raises(PretrainedError, match=rf"network\.pkl: .*{message}"):
        load_edm_pickle(path)
    assert time.process_time() - start < 1


@pytest.mark.parametrize("value", [None, "x", [1], {}, -1, 10**400])
@pytest.mark.parametrize("name", ["img_resolution", "img_channels", "sigma_data", "_init_kwargs"])
def test_wrong_inner_types_are_refused_with_the_name_of_the_file(written, name, value):
    path = written(**{name: value})[1]
    with pytest.raises(PretrainedError, match=r"network\.pkl: "):
        load_edm_pickle(path)


def test_weights_of_a_pickle_that_are_not_finite_are_refused(written):
    def spoil(tensors):
        tensors["model.map_layer1.bias"][0] = float("inf")

    with pytest.raises(PretrainedError, match="not all finite"):
        load_edm_pickle(written(change=spoil)[1])


def test_a_training_state_of_that_code_is_told_from_a_snapshot(stand_ins, tmp_path):
    torch.save({"net": Persistent("EDMPrecond"), "optimizer_state": {}}, tmp_path / "training-state-000500.pt")
    with pytest.raises(PretrainedError, match=r"nothing of it was executed.*take the network-snapshot beside it"):
        read_weights(tmp_path / "training-state-000500.pt")


def test_a_run_starts_from_such_a_file(written, tmp_path):
    _, path = written()
    options = {**TINY_EDM, "attention_resolutions": [4], "augment_labels": 3}
    run = {"n_retrain": 0, "init": str(path), "run_dir": tmp_path / "run"}
    experiment = open_experiment(model_options=options, **run)
    list(experiment.records())
    found = load_edm_pickle(path)
    state = experiment.run.load_state()
    assert all(np.array_equal(state[name], array) for name, array in found.state.items())
    assert init_identity(path).startswith("network.pkl@sha256:")
    with pytest.raises(ConfigError, match="the weights are of another network"):
        open_experiment(model_options=TINY_EDM, n_retrain=0, init=str(path), run_dir=tmp_path / "other")
    (tmp_path / "bad.pkl").write_bytes(pickle.dumps({"ema": 3}))
    with pytest.raises(ConfigError, match="holds no network under the key"):
        open_experiment(model_options=options, n_retrain=0, init=str(tmp_path / "bad.pkl"), run_dir=tmp_path / "other")
    assert not (tmp_path / "other").exists()
