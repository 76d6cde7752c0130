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
# # One run of iterative retraining
#
# This notebook runs Algorithm 1 once: one data set, one model, one scheme, one λ, one seed. It writes a *run directory*,
# which chapters read. Stop it whenever you like: the same command goes on after the last complete generation.
#
# | parameter | meaning |
# |---|---|
# | `dataset`, `data_dir` | the real images, `digits`, `fashion_mnist`, `cifar10` or `ffhq64`, and the folder of their files (for `ffhq64` also the zip), where files are needed |
# | `model`, `model_options` | `edm`, `flow_matching`, `ddpm`, `spline_flow` or `gaussian`, and overrides of its options |
# | `scheme`, `lam`, `scheme_options` | `mix` (all real images and ⌊λn⌋ synthetic ones), `fully_synthetic`, `accumulate`, `accumulate_subsample`, `fresh` or `weighted`; λ is the ratio synthetic : real, of the schemes that have one; and overrides of the scheme's other parameters |
# | `n_retrain` | retrainings after θ₀; may be raised later, the run then goes on |
# | `n_images_initial`, `n_images_per_retraining` | training budgets of θ₀ and of each retraining, in images shown |
# | `n_real` | 0 for all real images, or how many of them there are to be, the first of the data set |
# | `rare_class`, `rare_share` | -1, or a class of the real images of which only that share is there: biased real data |
# | `latents` | `fresh` noise for the samples of every generation, or `fixed`, the same in all, as in the paper's code |
# | `selector`, `keep_rate`, `selector_options` | empty, or which of the model's samples go on into the next training set: `random`, `fld_quality`, `fld_memorisation`, `density`, `confidence`, `discriminator`, `herding`, `kmeans`, `likelihood`, `verifier` or `choice`; what share of them; and overrides of the selector's options |
# | `seed`, `device` | the run's random numbers; `auto`, `cpu`, `cuda` or `cuda:N` |
# | `init` | empty to train θ₀ here, or what holds θ₀: a run directory (its last weights), or published weights: an EDM network (`.pkl`), a checkpoint of torchcfm (`.pt`, its EMA), a folder of a diffusers DDPM; nothing in such a file is executed, and `model` and `model_options` have to be those of its network |
# | `features`, `features_weights` | the feature space of the metrics: `auto` (a small classifier of the data set), `inception-legacy_pytorch` (as the authors' metric), `inception-clean` or `dinov2`, and where the weights of these three are |
# | `features_resizing` | how images are resized for Inception: `exact` (by clean-fid, one by one on the CPU), `batched` (the same up to rounding, on the GPU), or `auto`, which is exact on a CPU and batched on a GPU |
# | `keep_every` | 0 keeps the weights of θ₀ and of the last generation; k also those of every k-th |
# | `keep_samples` | 1 keeps the samples of every generation, k those of every k-th, 0 the last ones alone; what is kept can be measured again, `python -m iterative_retraining.remeasure` |
# | `checkpoint_images` | 0, or every how many images a fit leaves a checkpoint to go on from if it is killed in its middle |
# | `checkpoint_minutes` | `auto`, or every how many minutes it leaves one, 0 for none by time; `auto` is 10 on a GPU and 0 on a CPU; with either parameter SIGTERM leaves one too |
# | `micro_batch` | `auto`, or how many images of a batch are trained on at once: changes memory, time and rounding, not the run; `auto` is all on a CPU, and on a GPU what its free memory holds |
# | `cuda_graphs` | whether a GPU replays training and sampling as CUDA graphs instead of starting kernel by kernel: the same run, faster where the network or its batches are small; `True` changes nothing on a CPU |
# | `tensorboard_dir` | empty, or a folder for TensorBoard (needs the package tensorboard) |
# | `rehearsal` | whether this only shows that a run will work: its id says so, and it is never published; `python -m iterative_retraining --rehearsal` makes the other parameters such |
# | `run_dir` | where to write; empty for `runs/manual/<run id>` below the current directory |

# %% tags=["hide-input"]
from iterative_retraining.parameters import explain_keywords

explain_keywords()

# %% tags=["parameters"]
dataset = "digits"
model = "edm"
scheme = "mix"
lam = 0.5
scheme_options = {}
n_retrain = 5
n_images_initial = 180_000
n_images_per_retraining = 36_000
n_real = 0
rare_class = -1
rare_share = 0.1
latents = "fresh"
selector = ""
keep_rate = 0.5
selector_options = {}
seed = 0
device = "auto"
data_dir = ""
init = ""
features = "auto"
features_weights = ""
features_resizing = "auto"
run_dir = ""
keep_every = 0
keep_samples = 1
checkpoint_images = 0
checkpoint_minutes = "auto"
micro_batch = "auto"
cuda_graphs = False
tensorboard_dir = ""
rehearsal = False
model_options = {}

# %%
from iterative_retraining import open_experiment
from iterative_retraining.parameters import check_parameters
from iterative_retraining.runs.progress import (
    ProgressDisplay,
    opening_lines,
    tensorboard_writer,
)

names = (
    "dataset model scheme lam scheme_options n_retrain n_images_initial n_images_per_retraining seed device data_dir "
    "init features features_weights features_resizing run_dir keep_every keep_samples checkpoint_images "
    "checkpoint_minutes micro_batch cuda_graphs n_real rare_class rare_share latents selector keep_rate "
    "selector_options rehearsal model_options tensorboard_dir"
)
check_parameters(globals(), names)
given = {name: globals()[name] for name in names.split()[:-1]}
if "experiment" in globals():  # this cell was run before: give its directory free
    globals()["experiment"].run.close()
experiment = open_experiment(**given)
print(opening_lines(experiment.run, n_retrain))

# %%
log = tensorboard_writer(tensorboard_dir, experiment.run.config.run_id)
with ProgressDisplay(n_retrain, log=log) as progress:
    for record in experiment.records(progress):
        progress.generation_done(record)

# %%
from iterative_retraining import read_floor, read_runs
from iterative_retraining.studies.plots import quality_curves

figure = quality_curves(
    read_runs([experiment.run.path]), read_floor(experiment.run.path)
)
