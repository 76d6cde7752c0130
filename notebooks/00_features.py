# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The feature spaces of small grey images
#
# FID, precision and recall compare images in the feature space of a trained network. For small grey images the usual
# Inception network is no sensible choice, so this notebook trains a small classifier on the real training images; the 64
# numbers below its class scores are the features. The weights are kept with the package, and every run reads them from
# there. The held-out images measure the accuracy and nothing else.
#
# Run this notebook only to make those weights again.
#
# | parameter | meaning |
# |---|---|
# | `dataset`, `data_dir` | a data set whose own feature space is a classifier, and the folder of its files |
# | `n_epochs`, `seed` | of the training; 0 for the number of epochs that the feature space has |
# | `out_file` | where to write; empty for the file inside the package |

# %% tags=["parameters"]
dataset = "digits"
data_dir = ""
n_epochs = 0
seed = 0
out_file = ""

# %%
from pathlib import Path

from iterative_retraining.datasets import find_dataset, load_dataset
from iterative_retraining.errors import ConfigError
from iterative_retraining.metrics.features import FEATURES
from iterative_retraining.metrics.features.classifiers import (
    ClassifierSpace,
    accuracy,
    train_classifier,
)
from iterative_retraining.parameters import check_parameters
from safetensors.torch import save_file

check_parameters(globals(), "dataset data_dir n_epochs seed out_file")
space = FEATURES[find_dataset(dataset).features]
if not isinstance(space, ClassifierSpace):
    raise ConfigError(f"{dataset} has no classifier of its own: it uses {space.name}")

# %%
settings = {"seed": seed, "n_epochs": n_epochs or space.n_epochs}
net = train_classifier(space, *load_dataset(dataset, data_dir), **settings)
images, labels = load_dataset(dataset, data_dir, "test")
share = accuracy(net, images, labels)
print(f"accuracy on {len(images)} held-out images: {share:.4f}")

# %%
path = Path(out_file) if out_file else space.file
path.parent.mkdir(parents=True, exist_ok=True)
notes = {"dataset": dataset, "held_out_accuracy": f"{share:.4f}"}
notes |= {name: str(value) for name, value in settings.items()}
save_file(net.state_dict(), path, metadata=notes)
print(f"{path.name}: {path.stat().st_size} bytes")
