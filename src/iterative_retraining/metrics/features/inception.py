"""Feature spaces of Inception networks by clean-fid, from weights that the user has; nothing is downloaded.

A file is read only after its SHA-256 is found to be the published one.
"""

import hashlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from iterative_retraining.errors import WeightsError
from iterative_retraining.file_kinds import seems_to_be, unfinished
from iterative_retraining.metrics.features.checks import check_images, three_channels
from iterative_retraining.metrics.features.resizing import AUTO, BatchedResizer, chosen_resizing


@dataclass(frozen=True)
class WeightsFile:
    """A published file of weights."""

    name: str
    sha256: str
    url: str

    def find(self, given: str | Path) -> Path:
        """The file at ``given`` (a file, or a folder that holds it), or in torch's hub folder if that is empty.

        Raises WeightsError if it is missing or is another file.
        """
        path = Path(given) if str(given) else Path(torch.hub.get_dir()) / "checkpoints"
        path = path / self.name if path.is_dir() or not str(given) else path
        how = f"download {self.url} and set features_weights to the file (SHA-256 {self.sha256})"
        if not path.is_file():
            raise WeightsError(f"Inception weights {path} are missing: {how}{unfinished(path)}")
        try:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise WeightsError(f"Inception weights {path} cannot be read ({error}): {how}") from error
        if found != self.sha256:
            raise WeightsError(
                f"Inception weights {path} are damaged or another file (SHA-256 {found}); it seems to be "
                f"{seems_to_be(path)}: {how}"
            )
        return path


@dataclass(frozen=True)
class InceptionSpace:
    """Inception as clean-fid has it in ``mode``, which names the resizing; ``network`` reads the weights."""

    mode: str
    weights: WeightsFile
    network: Callable[[Path, str], Callable[[Tensor], Tensor]]
    needs_weights: ClassVar[bool] = True
    shape: ClassVar[None] = None

    @property
    def name(self) -> str:
        """The name in the registry."""
        return f"inception-{self.mode}"

    def build(self, weights: str | Path = "", device: str = "cpu", resizing: str = AUTO) -> "InceptionFeatures":
        """See `iterative_retraining.metrics.features.checks.FeatureEntry`."""
        return InceptionFeatures(self, weights, device=device, resizing=resizing)


class InceptionFeatures:
    """``features(images)``: uint8 (N, H, W, 1 or 3) -> float32 (N, 2048), by clean-fid's Inception and resizing.

    weights: file or folder; empty for torch's hub folder. resizing: "exact", by clean-fid's own function, an image at a
    time on the CPU; "batched", the same up to rounding on the device, see `resizing.BatchedResizer`; "auto": exact on a
    CPU and batched on a GPU, which would else wait for the CPU. Raises WeightsError if weights are missing or damaged.
    """

    def __init__(
        self,
        space: InceptionSpace,
        weights: str | Path = "",
        *,
        device: str = "cpu",
        batch_size: int = 64,
        resizing: str = AUTO,
    ) -> None:
        file = space.weights.find(weights)
        self.name = f"{space.name}-{space.weights.sha256[:8]}"
        self.device, self.batch_size = device, batch_size
        with warnings.catch_warnings():  # clean-fid sets warning filters and uses what torch and torchvision deprecate
            warnings.simplefilter("ignore")
            from cleanfid.resize import build_resizer

            self._resize = build_resizer(space.mode)
            self.resizing = chosen_resizing(resizing, device)
            self._batched = BatchedResizer(self._resize, device)
            self._network = space.network(file, device)

    @torch.inference_mode()
    def __call__(self, images: np.ndarray) -> np.ndarray:
        check_images(images)
        found = []
        for start in range(0, len(images), self.batch_size):
            batch = three_channels(images[start : start + self.batch_size])
            if self.resizing == "batched":
                x = self._batched(batch)
            else:
                resized = np.stack([self._resize(image) for image in batch])
                x = torch.from_numpy(resized).permute(0, 3, 1, 2).to(self.device, torch.float32)
            found.append(self._network(x).float().cpu().numpy())
        return np.concatenate(found)


def _legacy_network(file: Path, device: str) -> Callable[[Tensor], Tensor]:
    """pytorch-fid's network as clean-fid carries it; its own loader would download, and load pickles."""
    from cleanfid import features, inception_pytorch

    state = torch.load(file, map_location="cpu", weights_only=True)
    with mock.patch.object(inception_pytorch, "load_state_dict_from_url", return_value=state):
        return features.build_feature_extractor("legacy_pytorch", torch.device(device), use_dataparallel=False)


def _clean_network(file: Path, device: str) -> Callable[[Tensor], Tensor]:
    """NVIDIA's TorchScript network as clean-fid wraps it, from this file and no other."""
    from cleanfid.inception_torchscript import InceptionV3W

    loaded = torch.jit.load(str(file), map_location=device)
    with mock.patch.object(torch.jit, "load", return_value=loaded):
        return InceptionV3W(str(file.parent), download=False, resize_inside=False).to(device).eval()


# The network and bilinear resizing of pytorch-fid, which the authors' metric used.
INCEPTION_LEGACY_PYTORCH = InceptionSpace(
    "legacy_pytorch",
    WeightsFile(
        "pt_inception-2015-12-05-6726825d.pth",
        "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
        "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
    ),
    _legacy_network,
)
# The network of StyleGAN with bicubic antialiased resizing (Parmar et al. 2022).
INCEPTION_CLEAN = InceptionSpace(
    "clean",
    WeightsFile(
        "inception-2015-12-05.pt",
        "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4",
        "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/inception-2015-12-05.pt",
    ),
    _clean_network,
)
