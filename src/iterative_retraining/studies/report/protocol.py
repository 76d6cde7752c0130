"""What the flags of a retraining imply for the weights: how fast they move, and how much of the EMA stays where it was.

The flags of the published routes are facts read in the authors' public code, or stated in the papers it builds on; each
names its source. What follows from them is computed.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from iterative_retraining.models import MODELS
from iterative_retraining.models.fitting import kept_share, ramp_share
from iterative_retraining.models.pretrained import WEIGHTS_URLS


@dataclass(frozen=True, kw_only=True)
class Retraining:
    """How one retraining trains, counted in images shown to the network.

    n_images: its budget. learning_rate: nominal. lr_rampup_images: the rate rises linearly from 0 over so many images;
    with restart_ramp in every retraining anew, else it has done so before the first. next_start: what the next
    retraining starts from, the "ema" or the "raw" weights; samples are the EMA's in both cases. latents: "fixed" if all
    generations sample from the same noise. The other fields, and all values by default, are those of
    `iterative_retraining.models.fitting.TrainingConfig`.
    """

    n_images: int
    learning_rate: float
    batch_size: int
    ema_halflife_images: int
    lr_rampup_images: int = 0
    restart_ramp: bool = True
    keep_optimizer: bool = False
    next_start: str = "ema"
    latents: str = "fresh"

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> "Retraining":
        """From the identity of a run, or from the parameters of the notebook that makes one.

        Raises KeyError for a model that is not trained in batches.
        """
        flags = {**parameters, **parameters.get("options", parameters.get("model_options", {}))}
        own = {name: flags[name] for name in cls.__dataclass_fields__ if name in flags}
        return cls(n_images=flags["n_images_per_retraining"], **own)

    def rate(self, n_seen: np.ndarray | float) -> np.ndarray:
        """The learning rate after ``n_seen`` images of a retraining, as a fraction of the nominal one."""
        n_seen = np.asarray(n_seen, dtype=float)
        return ramp_share(n_seen, self._ramp) if self._ramp else np.ones_like(n_seen)

    @property
    def _ramp(self) -> int:
        """Images over which the rate rises in every retraining."""
        return self.lr_rampup_images if self.restart_ramp else 0

    def memory(self, n_seen: np.ndarray | float) -> np.ndarray:
        """The weight that the EMA still gives to the weights from before the retraining: 0.5^(n_seen / half-life)."""
        return kept_share(np.asarray(n_seen, dtype=float), self.ema_halflife_images)

    @property
    def peak_rate(self) -> float:
        """The highest learning rate of a retraining, as a fraction of the nominal one."""
        return float(self.rate(self.n_images))

    @property
    def mean_rate(self) -> float:
        """The mean of `rate` over a retraining."""
        peak = self.peak_rate
        return peak / 2 if peak < 1 else 1 - self._ramp / max(2 * self.n_images, 1)

    @property
    def old_share(self) -> float:
        """`memory` at the end of a retraining."""
        return float(self.memory(self.n_images))

    def reach(self, n_points: int = 10_000) -> float:
        """How far one retraining carries the EMA if every step goes the same way and is as long as the learning rate: a
        fraction of the way of raw weights at the nominal rate.

        Where the EMA is the next start, a step at s images counts with the share 1 - memory(n_images - s) that the EMA
        has taken up when the retraining ends. Where raw weights go on, the EMA takes up the rest later: it follows them
        at their pace.
        """
        n_seen = (np.arange(n_points) + 0.5) * (self.n_images / n_points)
        taken = 1.0 if self.next_start == "raw" else 1 - self.memory(self.n_images - n_seen)
        return float(np.mean(self.rate(n_seen) * taken))


def halflife_images(decay: float, batch_size: int) -> float:
    """The half-life, in images, of an EMA that keeps ``decay`` a step: ``batch_size`` ln 2 / -ln decay."""
    return batch_size * math.log(2) / -math.log(decay)


@dataclass(frozen=True, kw_only=True)
class PublishedFlags:
    """A route of the paper's experiments: its flags, the images that it samples and measures, and where each is from.

    n_real: the real images, of which as many are sampled, of resolution x resolution pixels. weights: the file or
    folder of the first model. sources: of the fields here and of `Retraining`, by name.
    """

    title: str
    retraining: Retraining
    n_real: int
    resolution: int
    weights: str
    sources: Mapping[str, str]

    @property
    def weights_url(self) -> str:
        """Where the weights are."""
        return WEIGHTS_URLS[self.weights]


CODE_BUDGET = 50_000  # images a retraining where the authors' script is not told otherwise: 0.05 Mimg
FLAGS = tuple(Retraining.__dataclass_fields__)
_CODE = "the authors' public code, flags of its retraining scripts"
_EPOCHS = "20 epochs, our choice; the code counts budgets in images, as here"
_SET = dict.fromkeys(("n_real", "resolution"), "the training set")
_COMMON = dict.fromkeys((*FLAGS, "weights"), _CODE) | {"n_images": _EPOCHS, **_SET}
_EDM = _COMMON | {
    "latents": f"{_CODE}: the sampler is deterministic and its seeds are 0 to N - 1 in every generation",
}
_OTCFM = _COMMON | {
    "ema_halflife_images": f"{_CODE}: 0.9999 a step",
    "latents": "not known here; fresh assumed",
}
_DDPM = {
    **dict.fromkeys(FLAGS, "not known here; as for OT-CFM"),
    **dict.fromkeys(
        ("learning_rate", "batch_size", "ema_halflife_images"), "Ho et al. (2020), appendix B, for CIFAR-10"
    ),
    "n_images": _EPOCHS,
    **_SET,
    "weights": "the network of Ho et al. (2020), as diffusers reads it; the authors' own checkpoint is private",
}
_EDM_FLAGS = {
    "batch_size": 256,
    "ema_halflife_images": 500_000,
    "lr_rampup_images": 10_000_000,
    "restart_ramp": True,
    "keep_optimizer": False,
    "next_start": "ema",
    "latents": "fixed",
}
_RAW = Retraining(
    n_images=1_000_000,
    learning_rate=2e-4,
    batch_size=128,
    ema_halflife_images=round(halflife_images(0.9999, 128)),
    keep_optimizer=True,
    next_start="raw",
    latents="fresh",
)
PUBLISHED = {
    "edm-cifar10": PublishedFlags(
        title="EDM, CIFAR-10",
        retraining=Retraining(n_images=1_000_000, learning_rate=1e-3, **_EDM_FLAGS),
        n_real=50_000,
        resolution=32,
        weights="edm-cifar10-32x32-uncond-vp.pkl",
        sources=_EDM,
    ),
    "edm-ffhq64": PublishedFlags(
        title="EDM, FFHQ-64",
        retraining=Retraining(n_images=1_400_000, learning_rate=2e-4, **_EDM_FLAGS),
        n_real=70_000,
        resolution=64,
        weights="edm-ffhq-64x64-uncond-vp.pkl",
        sources=_EDM,
    ),
    "otcfm-cifar10": PublishedFlags(
        title="OT-CFM, CIFAR-10",
        retraining=_RAW,
        n_real=50_000,
        resolution=32,
        weights="otcfm_cifar10_weights_step_400000.pt",
        sources=_OTCFM,
    ),
    "ddpm-cifar10": PublishedFlags(
        title="DDPM, CIFAR-10",
        retraining=_RAW,
        n_real=50_000,
        resolution=32,
        weights="ddpm-cifar10-32",
        sources=_DDPM,
    ),
}


def percent(share: float) -> str:
    """A share with three digits, as a percentage."""
    return f"{100 * share:.3g} %"


def implied_table(rows: Mapping[str, Retraining]) -> str:
    """A Markdown table: flags of retrainings by name, and what follows from them (`old EMA` is `old_share`)."""
    lines = [
        "| | images, M | nominal rate | peak, % | mean, % | old EMA, % | reach, % | next start | Adam | latents |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, r in rows.items():
        shares = " | ".join(f"{100 * share:.3g}" for share in (r.peak_rate, r.mean_rate, r.old_share, r.reach()))
        adam, images = "kept" if r.keep_optimizer else "afresh", f"{r.n_images / 1e6:g}"
        lines.append(f"| {name} | {images} | {r.learning_rate:g} | {shares} | {r.next_start} | {adam} | {r.latents} |")
    return "\n".join(lines)


def family_label(identity: Mapping[str, Any]) -> str:
    """How a run's model is retrained, in lines: model, peak rate, what the EMA keeps, latents; and its rare class."""
    model = identity["model"]
    if "rare_class" in identity:
        model += f"\nclass {identity['rare_class']} at {identity['rare_share']:g}"
    if not MODELS[identity["model"]].trains_in_batches:
        return model
    if not identity["options"]["warm_start"]:
        return f"{model}\nfrom scratch"
    r = Retraining.of(identity)
    return f"{model}\npeak rate {percent(r.peak_rate)}\nold EMA {percent(r.old_share)}\n{r.latents} latents"


def sources_list(published: Mapping[str, PublishedFlags]) -> str:
    """A Markdown list: where the flags of each route are from."""
    lines = []
    for flags in published.values():
        fields_of: dict[str, list[str]] = {}
        for name, source in flags.sources.items():
            fields_of.setdefault(source, []).append(f"`{name}`")
        lines.append(f"- **{flags.title}**")
        lines += [f"  - {', '.join(names)}: {source}" for source, names in fields_of.items()]
    return "\n".join(lines)
