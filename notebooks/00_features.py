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
# # The feature spaces of digits and Fashion-MNIST
#
# FID, precision and recall compare images in the feature space of a trained network. For small grey images the usual
# Inception network is no sensible choice, so this notebook trains a small classifier on the real images; the 64 numbers
# below its class scores are the features. The weights are kept with the package, and every run reads them from there.
#
# Run this notebook only to make those weights again. For digits it trains twice: on 80 % of the images, to measure the
# accuracy on the other 20 %, and on all of them, for the weights. Fashion-MNIST has test images of its own.
#
# | parameter | meaning |
# |---|---|
# | `dataset`, `data_dir` | `digits` or `fashion_mnist`, and the folder of its files |
# | `n_epochs`, `seed` | of the training; empty (0) for 20 epochs on digits, 6 on Fashion-MNIST |
# | `out_file` | where to write; empty for the file inside the package |

# %% tags=["parameters"]
dataset = "digits"
data_dir = ""
n_epochs = 0
seed = 0
out_file = ""

# %%
from pathlib import Path

from iterative_retraining.datasets import WITH_TEST_SPLIT, load_dataset
from iterative_retraining.metrics.features.classifiers import (
    accuracy,
    train_classifier,
    weights_file,
)
from iterative_retraining.parameters import check_parameters
from safetensors.torch import save_file
from sklearn.model_selection import train_test_split

check_parameters(globals(), "dataset data_dir n_epochs seed out_file")

# %%
images, labels = load_dataset(dataset, data_dir or None)
if dataset in WITH_TEST_SPLIT:
    held_out, held_out_labels = load_dataset(dataset, data_dir or None, "test")
    train, train_labels = images, labels
else:
    train, held_out, train_labels, held_out_labels = train_test_split(
        images, labels, test_size=0.2, random_state=seed, stratify=labels
    )

# %%
settings = {"dataset": dataset, "seed": seed}
settings["n_epochs"] = n_epochs or (20 if dataset == "digits" else 6)
net = train_classifier(train, train_labels, **settings)
share = accuracy(net, held_out, held_out_labels)
print(f"accuracy on {len(held_out)} held-out images: {share:.4f}")

# %%
if len(train) < len(images):
    net = train_classifier(images, labels, **settings)
path = Path(out_file) if out_file else weights_file(dataset)
path.parent.mkdir(parents=True, exist_ok=True)
notes = {
    "held_out_accuracy": f"{share:.4f}",
    **{k: str(v) for k, v in settings.items()},
}
save_file(net.state_dict(), path, metadata=notes)
print(f"{path.name}: {path.stat().st_size} bytes")
