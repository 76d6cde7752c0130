"""The feature space of a DINOv2 network by transformers, from weights that the user has; nothing is downloaded."""

import hashlib
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from iterative_retraining.errors import WeightsError
from iterative_retraining.metrics.features.checks import check_images, three_channels

HOW = "get it from https://huggingface.co/facebook/dinov2-base and set features_weights to the folder"


class DinoSpace:
    """DINOv2 (Oquab et al. 2024), any size of it."""

    name = "dinov2"
    needs_weights: ClassVar[bool] = True
    shape: ClassVar[None] = None

    def build(self, weights: str | Path = "", device: str = "cpu") -> "DinoFeatures":
        """See `iterative_retraining.metrics.features.checks.FeatureEntry`."""
        return DinoFeatures(weights, device=device)


DINOV2 = DinoSpace()


class DinoFeatures:
    """``features(images)``: uint8 (N, H, W, 1 or 3) -> float32 (N, D), the class token of a DINOv2 network.

    weights: a folder as Hugging Face's hub has it (config.json, model.safetensors), say of ``facebook/dinov2-base``.
    Images are resized to 224 x 224 (bicubic, antialiased) and normalised as ImageNet's are. Needs transformers.
    Raises WeightsError for a folder that does not hold such a network.
    """

    MEAN, STD, SIZE = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 224

    def __init__(self, weights: str | Path, *, device: str = "cpu", batch_size: int = 64) -> None:
        folder = Path(weights)
        file = folder / "model.safetensors"
        if not str(weights) or not file.is_file() or not (folder / "config.json").is_file():
            raise WeightsError(f"no DINOv2 weights (config.json, model.safetensors) in {str(weights)!r}: {HOW}")
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        self.net = _network(folder, f"DINOv2 weights {file} (SHA-256 {digest})").eval().to(device)
        self.name, self.device, self.batch_size = f"dinov2-{digest[:8]}", device, batch_size

    @torch.inference_mode()
    def __call__(self, images: np.ndarray) -> np.ndarray:
        check_images(images)
        mean, std = (torch.tensor(v, device=self.device).view(3, 1, 1) for v in (self.MEAN, self.STD))
        found = []
        for start in range(0, len(images), self.batch_size):
            batch = np.array(three_channels(images[start : start + self.batch_size]))  # torch wants it writable
            x = torch.from_numpy(batch).to(self.device).permute(0, 3, 1, 2).float() / 255
            x = torch.nn.functional.interpolate(x, size=(self.SIZE, self.SIZE), mode="bicubic", antialias=True)
            found.append(self.net(pixel_values=(x - mean) / std).pooler_output.float().cpu().numpy())
        return np.concatenate(found)


def _network(folder: Path, what: str) -> Any:
    """The network in ``folder``, whole. Raises WeightsError, which begins with ``what``."""
    try:
        from transformers import Dinov2Config, Dinov2Model
    except ImportError as error:
        raise WeightsError("DINOv2 features need the package transformers: pip install transformers") from error
    try:
        kind = Dinov2Config.get_config_dict(folder, local_files_only=True)[0].get("model_type")
        settings = {"local_files_only": True, "use_safetensors": True, "output_loading_info": True}
        net, info = Dinov2Model.from_pretrained(folder, **settings)
    except Exception as error:  # whatever transformers and safetensors raise for a damaged file
        raise WeightsError(f"{what} cannot be read: {error}; {HOW}") from error
    if kind != Dinov2Config.model_type or info["missing_keys"]:
        missing = f", without {len(info['missing_keys'])} of its tensors" if info["missing_keys"] else ""
        raise WeightsError(f"{what} are those of a network {kind!r}{missing}: {HOW}")
    return net
