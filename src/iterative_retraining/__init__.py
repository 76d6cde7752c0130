"""Iterative retraining of generative models on their own data: Algorithm 1, its parts by name, and its runs."""

from typing import Any

from iterative_retraining.config import RunConfig
from iterative_retraining.datasets import DATASETS, load_dataset
from iterative_retraining.ecosystem import Ecosystem, retrain_ecosystem
from iterative_retraining.errors import ConfigError, DataError, RunError, UserError
from iterative_retraining.experiment import Experiment, open_experiment
from iterative_retraining.interfaces import Dataset, FeatureSpace, Metric, Model, ModelFamily, Run, Scheme, Selector
from iterative_retraining.metrics import METRICS, ImageMetrics
from iterative_retraining.metrics.features import FEATURES, build_features
from iterative_retraining.models import MODELS, build_model, resolve_options
from iterative_retraining.models.gain import sampler_gain
from iterative_retraining.retrain import GenerationRecord, retrain
from iterative_retraining.runs.memory import MemoryRun
from iterative_retraining.runs.reading import read_floor
from iterative_retraining.schemes import (
    SCHEMES,
    Accumulate,
    AccumulateSubsample,
    Fresh,
    FullySynthetic,
    Mix,
    Weighted,
    build_scheme,
)
from iterative_retraining.selectors import SELECTORS, Selection, build_selector
from iterative_retraining.training_set import TrainingSet

__all__ = [
    "DATASETS",
    "FEATURES",
    "METRICS",
    "MODELS",
    "SCHEMES",
    "SELECTORS",
    "Accumulate",
    "AccumulateSubsample",
    "ConfigError",
    "DataError",
    "Dataset",
    "Ecosystem",
    "Experiment",
    "FeatureSpace",
    "Fresh",
    "FullySynthetic",
    "GenerationRecord",
    "ImageMetrics",
    "MemoryRun",
    "Metric",
    "Mix",
    "Model",
    "ModelFamily",
    "Run",
    "RunConfig",
    "RunError",
    "Scheme",
    "Selection",
    "Selector",
    "TrainingSet",
    "UserError",
    "Weighted",
    "build_features",
    "build_model",
    "build_scheme",
    "build_selector",
    "find_results",
    "load_dataset",
    "open_experiment",
    "read_floor",
    "read_runs",
    "resolve_options",
    "retrain",
    "retrain_ecosystem",
    "sampler_gain",
]


def __getattr__(name: str) -> Any:
    """`find_results` and `read_runs`, whose tables need pandas: it is loaded where they are asked for."""
    if name not in ("find_results", "read_runs"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from iterative_retraining.runs import results

    return getattr(results, name)
