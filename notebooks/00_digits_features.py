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
# # The feature space of the digits
#
# FID, precision and recall compare images in the feature space of a trained network. For 8 × 8 digits the usual
# Inception network is no sensible choice, so this notebook trains a small classifier on the real images; the 64 numbers
# below its class scores are the features. The weights are kept with the package, and every run reads them from there.
#
# Run this notebook only to make those weights again. It trains twice: on 80 % of the images, to measure the accuracy on
# the other 20 %, and on all of them, for the weights.

# %% tags=["parameters"]
seed = 0
out_file = ""

# %%
from pathlib import Path

from iterative_retraining.data import load_dataset
from iterative_retraining.metrics.features import (
    DIGITS_WEIGHTS,
    accuracy,
    train_classifier,
)
from iterative_retraining.parameters import check_parameters
from safetensors.torch import save_file
from sklearn.model_selection import train_test_split

check_parameters(globals(), "seed out_file")

# %%
images, labels = load_dataset("digits")
train, test = train_test_split(
    range(len(images)), test_size=0.2, random_state=seed, stratify=labels
)
held_out = accuracy(
    train_classifier(images[train], labels[train], seed=seed),
    images[test],
    labels[test],
)
print(f"accuracy on {len(test)} held-out images: {held_out:.4f}")

# %%
net = train_classifier(images, labels, seed=seed)
path = Path(out_file) if out_file else DIGITS_WEIGHTS
path.parent.mkdir(parents=True, exist_ok=True)
save_file(
    net.state_dict(),
    path,
    metadata={"seed": str(seed), "held_out_accuracy": f"{held_out:.4f}"},
)
print(f"{path.name}: {path.stat().st_size} bytes")
