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
# # Images: models retrained on their own samples
#
# *A generative model is retrained again and again, on real images alone, on mixes of real and synthetic images, and on
# synthetic images alone. Which of these runs degrade?* The figures are built as figures 1 and 2 of
# {cite}`bertrand2024stability` are, at a scale that fits a laptop: 8 × 8 digits instead of CIFAR-10 and FFHQ-64. What else could
# explain what is seen here, the sampler, the budget, memorising, is the subject of {doc}`05_controls`.

# %% tags=["parameters"]
run_dirs = []
scale = "by hand"

# %% tags=["hide-input"]
import numpy as np
from IPython.display import Markdown
from iterative_retraining.parameters import check_parameters
from iterative_retraining.runs.results import find_results, of_dataset, read_floor
from iterative_retraining.status import stale_note
from iterative_retraining.studies import plots
from iterative_retraining.studies.report.chapters import (
    arm_previews,
    run_facts,
    scale_note,
)
from iterative_retraining.studies.report.claims import find_claims, verdicts_list
from iterative_retraining.studies.report.comparisons import arm_table, paired_table
from iterative_retraining.studies.report.evidence import evidence_of
from iterative_retraining.studies.report.floors import band, n_of
from iterative_retraining.studies.report.groups import (
    main_groups,
    read_groups,
    size_note,
)
from scipy import stats

check_parameters(globals(), "run_dirs scale")
run_dirs = of_dataset(run_dirs or find_results(), "digits")
groups = main_groups(read_groups(run_dirs))
floor, claims, evidence = read_floor(run_dirs[0]), find_claims(), evidence_of(run_dirs)
Markdown("\n\n".join(filter(None, [scale_note(scale, run_dirs), stale_note(run_dirs)])))

# %% [markdown]
# ## What is run
#
# - **Data**: real digits that ship inside scikit-learn, grey, 8 × 8; a stratified part of them is held out and never trained on.
# - **Models**: EDM {cite}`karras2022elucidating` with a DDPM++ U-Net {cite}`song2021score` of 16 channels, written from the papers'
#   equations, and, where they were run, flow matching {cite}`lipman2023flow,tong2024improving` (noise and data of a batch paired by optimal
#   transport), DDPM and a spline flow.
# - **Arms**: what a generation learns from. *Fully synthetic*: samples of the generation before alone. λ: all real images and λ times as
#   many of those samples; λ = 0 is the control, which goes on training on real images.
# - **Retraining**: each starts from the weights (the EMA) of the one before, with a fresh Adam, for the same number of images
#   whatever the arm. θ₀ is trained once per seed, until its held-out loss is flat, and shared by all arms of that seed.
# - **Sampler**: one whose gain on the spectrum of the data is within half a per cent ({doc}`05_controls`).
# - **Latents**: fresh for every generation. (The paper's code reuses the same ones; see {doc}`../setting`.)
# - **Metrics**: between as many samples as there are training images and those images, on the 64 features of a small classifier
#   trained on the real digits: comparable within this chapter, no FIDs of Inception features. *Against held-out images*: the same, with the
#   held-out images as the real ones. {doc}`metrics` defines them all and shows what each can miss.
# - **Floor**: what real images give in the place of samples. Against training images: random halves of them, FID brought to the
#   arms' number of images, as its expectation between two real sets of $N$ and $M$ goes as $1/N + 1/M$. Against held-out images: all training
#   images.
#
# These runs:

# %% tags=["hide-input"]
Markdown(run_facts(run_dirs) + "\n\n" + size_note(groups))

# %% [markdown]
# ## First: does training on real images alone stay what it was?
#
# The control is a reference only if it does not change by itself. A network that is trained on for long learns its training images by
# heart: its loss on them falls on while that on held-out images rises; FLD's gap falls; authenticity falls.

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-memorising", "caption": "The loss of the model on held-out and on training images, the FLD gap (more negative: more memorising), and authenticity, against the number of retrainings. Lines: mean over seeds; bands: their range."}, "image": {"alt": "Four panels by arm: held-out loss, training loss, FLD gap and authenticity against retrainings."}}
memory = ["held_out_loss", "training_loss", "fld_gap", "authenticity"]
figure = plots.family_curves(groups, floor, memory)

# %% tags=["hide-input"]
ids = ["no-memorising", "nothing-copied", "synthetic-delays-memorising"]
Markdown(verdicts_list(claims, evidence, ids))

# %% [markdown]
# ## FID, precision and recall

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-quality", "caption": "FID (lower is better), precision and recall (higher is better) against the number of retrainings, measured against the training images as in figure 2 of the paper. Lines: mean over seeds; bands: their range. Grey: real against real at the arms' number of images."}, "image": {"alt": "Three panels of FID, precision and recall against retrainings by arm, with the real-vs-real floor."}}
main = ["fid", "precision", "recall"]
figure = plots.family_curves(groups, floor, main)

# %% tags=["hide-input"]
tables = (f"**{name}**\n\n{arm_table(t, floor, main)}" for name, t in groups.items())
Markdown("\n\n".join(tables))

# %% [markdown]
# *How to read {numref}`fig-quality`.* The first point of every curve is θ₀, the same in all arms of a seed. An arm is stable if it stays
# with the control, and diverges if it leaves it and keeps going.

# %% tags=["hide-input"]
ids = ["figure-2-synthetic-edm", "figure-2-stable-edm"]
ids += ["figure-2-synthetic-otcfm", "figure-2-stable-otcfm", "half-synthetic-costs"]
Markdown(verdicts_list(claims, evidence, ids))

# %% [markdown]
# ## The same against images that were held out
#
# Against the training images a model that repeats them does well. Against held-out images it does not.

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-held-out", "caption": "FID, precision, recall and coverage against held-out images. Grey line: all training images in the place of the samples."}, "image": {"alt": "Four panels of FID, precision, recall and coverage against held-out images, by arm and number of retrainings."}}
held_out = ["held_out_fid", "held_out_precision", "held_out_recall", "held_out_density"]
figure = plots.family_curves(groups, floor, held_out)

# %% tags=["hide-input"]
parts = (f"**{name}**\n\n{paired_table(t, held_out)}" for name, t in groups.items())
verdicts = verdicts_list(
    claims, evidence, ["precision-rewards-memorising", "precision-settles"]
)
Markdown("\n\n".join([*parts, verdicts]))

# %% [markdown]
# ## What the other metrics see

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-more-metrics", "caption": "KID (lower is better), density, coverage and the variance of pixels against the number of retrainings; lines, bands and floor as in the figure before."}, "image": {"alt": "Four panels of KID, density, coverage and pixel variance against retrainings, by arm, with the real-vs-real floor."}}
more = ["kid", "density", "coverage", "pixel_variance"]
figure = plots.family_curves(groups, floor, more)

# %% tags=["hide-input"]
tables = (f"**{name}**\n\n{paired_table(one)}" for name, one in groups.items())
Markdown("\n\n".join(tables))

# %% [markdown]
# ## Samples over retrainings

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-samples", "caption": "Samples against the number of retrainings, as in figure 1 of the paper, for the first seed. Every tile starts from the same latent in all panels, so a change is the model's."}, "image": {"alt": "Grids of generated digits by arm and number of retrainings, each tile from the same latent in all panels."}}
first = next(iter(groups.values()))
shortest = first.groupby("run_id").generation.max().min()
shown = [int(g) for g in np.linspace(0, shortest, 5)]
figure = plots.sample_grid(arm_previews(first), shown)

# %% [markdown]
# ## What the paper says, what we see, why
#
# *The paper says* that, for all its models and data sets, only training on synthetic data alone diverges, that EDM on CIFAR-10
# is stable for λ from 0 to 1, and EDM on FFHQ-64 for λ below 0.5.
#
# *We see*, on digits, what the verdicts above say, each with its interval; {doc}`claims` has all of them with their contracts, what
# failed first.
#
# *Why*: {doc}`05_controls` takes the possible reasons one by one.

# %% [markdown]
# ## Exercises
#
# :::{exercise} Fewer images, a higher floor
# :label: ex-images-floor
# FID has a bias. If every arm drew half as many samples, measured against as many real images, where would the floor of {numref}`fig-quality` lie? Use that the expectation goes as $1/N + 1/M$.
# :::
#
# :::{solution-start} ex-images-floor
# :class: dropdown
# :::
# Twice as high. A FID of one study is compared with that of another at the same number of images, or not at all.

# %% tags=["solution"]
n_real = n_of(first)
floors = {k: band(floor, "fid", k).mean for k in (n_real, n_real // 2, n_real // 10)}
lines = [f"| {k} | {value:.3f} |" for k, value in floors.items()]
Markdown("\n".join(["| images | FID of real against real |", "|---|---|", *lines]))

# %% [markdown]
# :::{solution-end}
# :::
#
# :::{exercise} How many seeds?
# :label: ex-images-seeds
# The intervals of the tables are $t$-intervals over seeds. By how much would they shrink if three seeds became five, or ten, with the same scatter between seeds? More or less than the square root suggests?
# :::
#
# :::{solution-start} ex-images-seeds
# :class: dropdown
# :::
# More: with three seeds the scatter itself is hardly known, and the quantile of the $t$-distribution pays for that.

# %% tags=["solution"]
half_widths = {k: stats.t.ppf(0.975, k - 1) / np.sqrt(k) for k in (3, 5, 10)}
lines = [
    f"| {k} | {value:.2f} | {value / half_widths[3]:.2f} | {np.sqrt(3 / k):.2f} |"
    for k, value in half_widths.items()
]
head = "| seeds | half width, in standard deviations | relative to three | square root alone |"
Markdown("\n".join([head, "|---|---|---|---|", *lines]))

# %% [markdown]
# :::{solution-end}
# :::
#
# :::{exercise} A run of your own
# :label: ex-images-run
# Predict where precision and recall of λ = 2 end, from λ = 0 and λ = 1. Then run `notebooks/retrain.ipynb` with `-p lam 2` and look. (Some minutes on a CPU, with the small budget that is the default there.)
# :::
#
# :::{exercise} What would convince you?
# :label: ex-images-contract
# Write a contract for "precision of λ = 1 stays level": which number, which interval, which margin, how many seeds? Compare it with those in {doc}`claims`.
# :::
#
# :::{admonition} Three things learnt
# :class: tip
#
# 1. On its own samples alone the model of digits leaves the real data; with the real data in the mix it does not run away.
# 2. Not to run away is not to be as good: an arm is compared with λ = 0 of the same seed, and with the floor at its own number of images.
# 3. Measured against the training images, a model that repeats them looks well; held-out images tell.
# :::
#
# *What this chapter does not show*: CIFAR-10, FFHQ-64, or the published weights. *Where to go next*: {doc}`05_controls` for what else could explain the curves, {doc}`06_paper_scale` for
# larger images.
