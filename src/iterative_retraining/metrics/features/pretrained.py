"""Feature spaces of published networks, from weights that the user has: Inception by clean-fid, DINOv2 by transformers.

Nothing is downloaded. A file is read only after its SHA-256 is found to be the published one.
"""

import hashlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from iterative_retraining.errors import WeightsError
from iterative_retraining.metrics.features.checks import check_images


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
            raise WeightsError(f"Inception weights {path} are missing: {how}")
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != self.sha256:
            raise WeightsError(f"Inception weights {path} are damaged or another file (SHA-256 {found}): {how}")
        return path


INCEPTION = {
    "legacy_pytorch": WeightsFile(
        "pt_inception-2015-12-05-6726825d.pth",
        "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
        "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
    ),
    "clean": WeightsFile(
        "inception-2015-12-05.pt",
        "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4",
        "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/inception-2015-12-05.pt",
    ),
}


class InceptionFeatures:
    """``features(images)``: uint8 (N, H, W, 1 or 3) -> float32 (N, 2048), by clean-fid's Inception and resizing.

    mode: ``legacy_pytorch`` (the network and bilinear resizing of pytorch-fid, which the authors' metric used) or
    ``clean`` (the network of StyleGAN, bicubic antialiased resizing; Parmar et al. 2022). weights: file or folder;
    empty for torch's hub folder. Raises WeightsError if they are missing or damaged, ValueError for another mode.
    """

    def __init__(self, mode: str, weights: str | Path = "", *, device: str = "cpu", batch_size: int = 64) -> None:
        if mode not in INCEPTION:
            raise ValueError(f"unknown Inception mode {mode!r}; allowed: {', '.join(INCEPTION)}")
        file = INCEPTION[mode].find(weights)
        self.name = f"inception-{mode}-{INCEPTION[mode].sha256[:8]}"
        self.device, self.batch_size = device, batch_size
        with warnings.catch_warnings():  # clean-fid sets warning filters and uses what torch and torchvision deprecate
            warnings.simplefilter("ignore")
            from cleanfid.resize import build_resizer

            self._resize = build_resizer(mode)
            self._network = _legacy_network(file, device) if mode == "legacy_pytorch" else _clean_network(file, device)

    @torch.inference_mode()
    def __call__(self, images: np.ndarray) -> np.ndarray:
        check_images(images)
        found = []
        for start in range(0, len(images), self.batch_size):
            batch = np.stack(
                [self._resize(image) for image in _three_channels(images[start : start + self.batch_size])]
            )
            x = torch.from_numpy(batch).permute(0, 3, 1, 2).to(self.device, torch.float32)
            found.append(self._network(x).float().cpu().numpy())
        return np.concatenate(found)


def _three_channels(images: np.ndarray) -> np.ndarray:
    return np.repeat(images, 3, axis=3) if images.shape[3] == 1 else images


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


class DinoFeatures:
    """``features(images)``: uint8 (N, H, W, 1 or 3) -> float32 (N, D), the class token of a DINOv2 network.

    weights: a folder as Hugging Face's hub has it (config.json, model.safetensors), say of ``facebook/dinov2-base``.
    Images are resized to 224 x 224 (bicubic, antialiased) and normalised as ImageNet's are. Needs transformers.
    Raises WeightsError for a folder that does not hold such a network.
    """

    MEAN, STD, SIZE = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 224

    def __init__(self, weights: str | Path, *, device: str = "cpu", batch_size: int = 64) -> None:
        folder = Path(weights)
        how = "get it from https://huggingface.co/facebook/dinov2-base and set features_weights to the folder"
        file = folder / "model.safetensors"
        if not str(weights) or not file.is_file() or not (folder / "config.json").is_file():
            raise WeightsError(f"no DINOv2 weights (config.json, model.safetensors) in {str(weights)!r}: {how}")
        try:
            from transformers import Dinov2Model
        except ImportError as error:
            raise WeightsError("DINOv2 features need the package transformers: pip install transformers") from error
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        try:
            self.net = Dinov2Model.from_pretrained(folder, local_files_only=True, use_safetensors=True)
        except Exception as error:  # whatever transformers and safetensors raise for a damaged file
            raise WeightsError(f"DINOv2 weights {file} (SHA-256 {digest}) cannot be read: {error}; {how}") from error
        self.net.eval().to(device)
        self.name, self.device, self.batch_size = f"dinov2-{digest[:8]}", device, batch_size

    @torch.inference_mode()
    def __call__(self, images: np.ndarray) -> np.ndarray:
        check_images(images)
        mean, std = (torch.tensor(v, device=self.device).view(3, 1, 1) for v in (self.MEAN, self.STD))
        found = []
        for start in range(0, len(images), self.batch_size):
            batch = np.array(_three_channels(images[start : start + self.batch_size]))  # torch wants it writable
            x = torch.from_numpy(batch).to(self.device).permute(0, 3, 1, 2).float() / 255
            x = torch.nn.functional.interpolate(x, size=(self.SIZE, self.SIZE), mode="bicubic", antialias=True)
            found.append(self.net(pixel_values=(x - mean) / std).pooler_output.float().cpu().numpy())
        return np.concatenate(found)
