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
# # Paper scale: CIFAR-10 and FFHQ-64
#
# *What does a retraining of the paper's experiments do to the weights, what does it cost, and how is it run here?* CIFAR-10
# and FFHQ-64 take a GPU and the published weights. How far the flags of the published code let a network move can be worked out
# without either, and it decides how the paper's curves are to be read.

# %% tags=["parameters"]
run_dirs = []
scale = "by hand"
peak_tflops = {"float32": 19.5, "bfloat16": 312.0}
utilisation = 0.25
throughput = {}

# %% tags=["hide-input"]
from dataclasses import replace
from pathlib import Path

import numpy as np
import yaml
from IPython.display import Markdown
from iterative_retraining.parameters import check_parameters
from iterative_retraining.runs.results import find_results, of_dataset, read_floor
from iterative_retraining.status import stale_note
from iterative_retraining.studies import plots
from iterative_retraining.studies.report.chapters import (
    arm_previews,
    read_families,
    scale_note,
)
from iterative_retraining.studies.report.claims import find_claims, verdicts_list
from iterative_retraining.studies.report.comparisons import arm_summary, family_tables
from iterative_retraining.studies.report.controls import gains_of_runs
from iterative_retraining.studies.report.costs import cost_table, retraining_cost
from iterative_retraining.studies.report.evidence import evidence_of
from iterative_retraining.studies.report.protocol import (
    CODE_BUDGET,
    PUBLISHED,
    Retraining,
    implied_table,
    percent,
    sources_list,
)
from myst_nb import glue

check_parameters(globals(), "run_dirs scale peak_tflops utilisation throughput")
datasets = ("cifar10", "ffhq64", "fashion_mnist", "fashion_mnist14")
own = of_dataset(run_dirs or find_results(), *datasets)
Markdown("\n\n".join(filter(None, [scale_note(scale, own), stale_note(own)])))

# %% [markdown]
# ## What the published code does
#
# The paper fine-tunes published networks: EDM {cite}`karras2022elucidating` on CIFAR-10 and FFHQ-64 and, by the code, OT-CFM
# {cite}`tong2024improving` and DDPM {cite}`ho2020denoising` on CIFAR-10. In the EDM route each retraining is a new training that
# starts from the network before it: with a ramp of the learning rate of its own, over {glue:text}`ramp` million images, and
# a fresh Adam. The moving average of the weights (EMA) begins at the old network, and it is what is sampled and retrained next.
# In the OT-CFM route training goes on: raw weights, old moments of Adam, full rate, and the EMA beside them.
#
# Two numbers follow from such flags alone. With a ramp over $r$ images, a retraining of $n < r$ images ends at the fraction $n / r$
# of the nominal rate, and has half of that on average. An EMA of half-life $h$ leaves the weight $2^{-n/h}$ on the old network.
# The table assumes {glue:text}`epochs` epochs a retraining; the code's own default is {glue:text}`default-epochs`, and is added.

# %% tags=["hide-input"]
published = {flags.title: flags.retraining for flags in PUBLISHED.values()}
edm, ffhq, otcfm, _ = published.values()
default = replace(edm, n_images=CODE_BUDGET)
Markdown(implied_table({**published, "EDM, the code's default budget": default}))

# %% tags=["hide-input"]
named = {"edm": edm, "ffhq": ffhq, "default": default, "otcfm": otcfm}
for name, r in named.items():
    glue(f"{name}-peak", percent(r.peak_rate), display=False)
    glue(f"{name}-mean", percent(r.mean_rate), display=False)
    glue(f"{name}-old", percent(r.old_share), display=False)
    glue(f"{name}-reach", percent(r.reach()), display=False)
n_real = PUBLISHED["edm-cifar10"].n_real
glue("ramp", edm.lr_rampup_images // 1_000_000, display=False)
glue("epochs", edm.n_images // n_real, display=False)
glue("default-epochs", CODE_BUDGET // n_real, display=False)

# %% tags=["hide-input"]
folders = (p / "profiles" / "paper" for p in (Path.cwd(), *Path.cwd().parents))
folder = next(p for p in folders if p.is_dir())
arms = {}
for name in PUBLISHED:
    preset = yaml.safe_load((folder / f"{name}.yml").read_text())
    arms[name], arms[f"{name}, as intended"] = (
        {**preset["run"], **arm} for arm in preset["arms"][::2]
    )
retrainings = {name: Retraining.of(arm) for name, arm in arms.items()}
intended = retrainings["edm-cifar10, as intended"]
glue("intended-old", percent(intended.old_share), display=False)
glue("intended-reach", percent(intended.reach()), display=False)

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-protocol", "caption": "One retraining, by the published flags and as intended (see below). Left: learning rate, as a fraction of the nominal one. Right: weight of the EMA on the weights from before the retraining. Every curve ends, at its dot, where the retraining does; curves of one route lie on each other."}, "image": {"alt": "Two panels against images of a retraining. Left: the learning rate of the EDM route climbs to a small fraction of the nominal one; OT-CFM and the intended protocol have the full rate. Right: the weight of the EMA on the old weights, which falls far only with a short half-life or a long retraining."}}
shown = {"EDM, FFHQ-64": ffhq, "EDM, CIFAR-10": edm, "EDM, default budget": default}
shown |= {"OT-CFM, CIFAR-10": otcfm, "EDM, CIFAR-10, as intended": intended}
seen = {name: np.geomspace(1_000, r.n_images, 200) for name, r in shown.items()}
curves = {
    name: (seen[name], r.rate(seen[name]), r.memory(seen[name]))
    for name, r in shown.items()
}
figure = plots.protocol_panels(curves)

# %% [markdown]
# EDM on CIFAR-10 gets to {glue:text}`edm-peak` of its nominal learning rate, {glue:text}`edm-mean` on average, and leaves
# {glue:text}`edm-old` of the EMA on the old weights. On FFHQ-64 it is {glue:text}`ffhq-peak` and {glue:text}`ffhq-old`; at the
# default budget of the code {glue:text}`default-peak` and {glue:text}`default-old`. OT-CFM trains at {glue:text}`otcfm-peak`.
#
# Both together bound how far a network goes. If all steps of a retraining went the same way, each as long as its learning rate, which
# is about what Adam does, the EMA would come to a certain fraction of where raw weights at the nominal rate come to: the *reach*
# in the table. It is {glue:text}`edm-reach` for EDM on CIFAR-10, {glue:text}`ffhq-reach` on FFHQ-64 and
# {glue:text}`default-reach` at the default budget. Reach is derived from the flags, not measured; real steps do not all go one way.

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-reach", "caption": "Reach of the EMA against the budget of a retraining, for EDM on CIFAR-10: by the published flags, without the ramp, with an EMA that forgets (ten half-lives a retraining), and with both. Vertical lines: the budget that is the default of the code, and that of the table."}, "image": {"alt": "Log-log curves of the reach against images of a retraining: lowest by the published flags, higher by an order of magnitude without the ramp, and near one hundred percent without the ramp and with an EMA that forgets."}}
budgets = np.geomspace(20_000, 20_000_000, 60).astype(int)
short = intended.ema_halflife_images / intended.n_images
no_ramp = replace(edm, restart_ramp=False)
kinds = {"as published": (edm, None), "EMA that forgets": (edm, short)}
kinds |= {"no ramp": (no_ramp, None), "both": (no_ramp, short)}
curves = {}
for name, (r, share) in kinds.items():
    halflives = share * budgets if share else np.full(60, r.ema_halflife_images)
    own_kind = (
        replace(r, n_images=n, ema_halflife_images=h).reach()
        for n, h in zip(budgets, halflives, strict=True)
    )
    curves[name] = (budgets, np.array(list(own_kind)))
marks = {"default": CODE_BUDGET, f"{edm.n_images // n_real} epochs": edm.n_images}
figure = plots.reach_by_budget(curves, marks)

# %% [markdown]
# A network that hardly moves keeps its FID, whatever it is retrained on. By the paper the fully synthetic run of EDM diverges all the
# same, so it does move; how much of the stability of the other runs is that of the mix, and how much that of the flags, the paper does
# not separate. Three further differences between text and
# code bear on these runs: the samples of the EDM route come from the same latents in every generation, where Theorem 2 assumes fresh
# ones; images pass through 8 bits between generations; and which synthetic images are taken is not seeded.
#
# Where the flags are from:

# %% tags=["hide-cell"]
Markdown(sources_list(PUBLISHED))

# %% [markdown]
# ## As published, as intended
#
# The presets in `profiles/paper/` name every value with its source, and each has two variants. *As published* follows the flags.
# *As intended* is what a reader of the paper would take the text for: training simply goes on from the model before. That is our
# reading, and these are its choices. The nominal learning rate from the first step of every retraining. Adam goes on with
# its moments: afresh and without a ramp, it would begin each retraining with a jolt. An EMA with ten half-lives in a retraining,
# which leaves {glue:text}`intended-old` on the old weights, and a reach of {glue:text}`intended-reach`; it is shorter than what is best
# for the quality of samples. The EMA is what is sampled and what is retrained. Fresh latents. The table is computed from the presets.

# %% tags=["hide-input"]
Markdown(implied_table(retrainings))

# %% [markdown]
# Both variants are run fully synthetic and, mixed, for our grid of λ; that of the paper, which goes from 0 to 1, is not at hand. In the DDPM
# preset only the sampler is known from the code, and its first model is that of Ho et al.; the authors' own is private. OT-CFM goes on
# from the raw weights and Adam's moments that the published file holds beside the EMA, as the code does. The files of EDM and DDPM hold
# nothing but weights, so there the first retraining starts Adam afresh, at them.
#
# ## What one retraining costs
#
# Operations are counted by PyTorch on tensors without content; a multiply-add counts 2, a training step as three forward passes.
# Every retraining draws as many samples as there are real images. *As published* is float32, whole: no flag that is known here asks for less, and the
# training code of EDM turns off the rounding to TF32. *As intended* is bfloat16, which is what tensor cores are for; on small networks it made no
# difference that could be told (`benchmarks/README.md`). The assumed speed is {glue:text}`speed`. Metrics are not counted.

# %% tags=["hide-input"]
costs, flops = {}, {}
for name, arm in arms.items():
    flags = PUBLISHED[name.partition(",")[0]]
    size = {"size": flags.resolution, "colours": 3}
    counts = {
        "n_images": arm["n_images_per_retraining"],
        "n_samples": flags.n_real,
    }
    costs[name] = retraining_cost(
        arm["dataset"], arm["model"], arm["model_options"], **size, **counts
    )
    peak = peak_tflops[arm["model_options"]["precision"]]
    flops[name] = utilisation * peak * 1e12
Markdown(cost_table(costs, flops, throughput))

# %% tags=["hide-input"]
peaks = " and ".join(f"{peak:g} in {of}" for of, peak in peak_tflops.items())
assumed = f"{percent(utilisation)} of a peak of {peaks} (TFLOP/s), an assumption and not a measurement"
n_retrain = arms["edm-cifar10"]["n_retrain"]
glue("speed", assumed, display=False)
glue("retrainings-paper", n_retrain, display=False)
for name, of in (
    ("published", "edm-cifar10"),
    ("intended", "edm-cifar10, as intended"),
):
    hours = n_retrain * costs[of].hours_at(flops[of])
    glue(f"hours-{name}", f"{hours:.0f}", display=False)

# %% [markdown]
# The default peaks are those of an NVIDIA A100 by its data sheet. An arm of {glue:text}`retrainings-paper` retrainings of EDM on CIFAR-10 is
# then {glue:text}`hours-published` hours as published and {glue:text}`hours-intended` as intended. To have the first at the speed of the second, set
# `precision: bfloat16` in a copy of the preset: that is another run. No GPU has been measured here; the parameter `throughput` takes, for each row,
# measured images a second in training and samples a second.
#
# And memory: a batch of 256 takes 32 GB on CIFAR-10 and 82 GB on FFHQ-64 in float32, about half in bfloat16, counted before anything is
# computed (`benchmarks/README.md`). By default a GPU takes as many images of a batch at a time as it holds (`micro_batch`), which changes neither
# the run nor, beyond rounding, its numbers. To compute activations again in the backward pass instead is not offered: it takes another forward pass
# in every step, where pieces of a batch take no more operations than the whole.
#
# ## How to launch
#
# Put the files that a preset names at its top below `data/`; a file that is missing is named with where it comes from. Then:
#
# ```bash
# # what is missing here, all of it at once
# python workflow/plan.py paper/edm-cifar10 --check
# # what it costs on a card that is not here
# python workflow/plan.py paper/edm-cifar10 --device a100
# # a rehearsal: every step of the sweep in the small
# snakemake sweep --cores all \
#     --config profile=paper/edm-cifar10 rehearsal=true
# # which runs there will be
# snakemake -n sweep --config profile=paper/edm-cifar10
# # on four GPUs, one run on each
# snakemake sweep --cores all --resources gpu=4 \
#     --config profile=paper/edm-cifar10 device=cuda
# # on a Slurm cluster
# snakemake sweep --workflow-profile workflow/slurm \
#     --config profile=paper/edm-cifar10 device=cuda
# ```
#
# The planner takes the speeds that your ledgers measured, `--images-per-second` and `--samples-per-second`, or a table of cards. A rehearsal takes
# stand-ins for missing files, kills and resumes a run, and ends with what the sweep will take on this machine. A run that is killed goes on from its
# last checkpoint, of every ten minutes. For one run on several GPUs set `gpus_per_run` among the `resources` of a profile, or start it by `torchrun`
# ({doc}`../reproduce`); for a sweep, one run a GPU is the better use of them. Kept generations can be measured again in other features without
# training: `python -m iterative_retraining.remeasure`. On a machine with a GPU, `benchmarks/first_hour.sh` does all of this in order and leaves a report.
#
# The other presets: `paper/edm-ffhq64`,
# `paper/otcfm-cifar10`, `paper/ddpm-cifar10`. One arm by hand is `papermill notebooks/retrain.ipynb` with the same values, as in {doc}`../reproduce`.
#
# ## CIFAR-10 and FFHQ-64
#
# *The paper says* that for all models and data sets only training on synthetic data alone diverges; that EDM on CIFAR-10 is stable for λ from
# 0 to 1, and EDM on FFHQ-64 for λ below 0.5 (its figure 2).

# %% tags=["hide-input"]
main = ["fid", "precision", "recall"]
paths = {name: of_dataset(own, name) for name in datasets}
families = {name: read_families(found) for name, found in paths.items()}
floors = {name: read_floor(found[0]) for name, found in paths.items() if found}


def show(name):
    return plots.family_curves(families[name], floors[name], main)


# %% tags=["hide-input", "if-run"] mystnb={"figure": {"name": "fig-cifar10", "caption": "CIFAR-10: FID (lower is better), precision and recall (higher is better) against the number of retrainings, a row for each way of retraining. Lines: mean over seeds; bands: their range; grey: real against real."}, "image": {"alt": "FID, precision and recall on CIFAR-10 against retrainings by arm, a row for each way of retraining."}}
figure = show("cifar10") if paths["cifar10"] else None

# %% tags=["hide-input", "if-run"] mystnb={"figure": {"name": "fig-ffhq64", "caption": "FFHQ-64, as the figure of CIFAR-10."}, "image": {"alt": "FID, precision and recall on FFHQ-64 against retrainings by arm, a row for each way of retraining."}}
figure = show("ffhq64") if paths["ffhq64"] else None

# %% tags=["hide-input"]
found = {
    "CIFAR-10": family_tables(families["cifar10"], floors.get("cifar10"), main),
    "FFHQ-64": family_tables(families["ffhq64"], floors.get("ffhq64"), main),
}
parts = (
    f"**{k}**: {text or 'not run yet; the commands are above.'}"
    for k, text in found.items()
)
Markdown("\n\n".join(parts))

# %% [markdown]
# *We see* of these runs what is shown here; where none is shown, we know what the flags imply, and no more.
#
# ## In between: Fashion-MNIST
#
# A smaller step up from the digits of {doc}`05_images`, which a CPU can take: grey images of 28 × 28 pixels of ten kinds of clothes, a
# small U-Net trained here from scratch, and features from a small classifier of the same data. `profile=fashion_cpu` is a
# grid for two CPU cores, on few of the real images and with few retrainings; `profile=fashion` is one for a GPU, on all 60 000.

# %% tags=["hide-input", "if-run"] mystnb={"figure": {"name": "fig-fashion", "caption": "Fashion-MNIST: FID (lower is better), precision and recall (higher is better) against the number of retrainings, a row for each way of retraining. Lines: mean over seeds; bands: their range; grey: real against real."}, "image": {"alt": "FID, precision and recall on Fashion-MNIST against retrainings by arm, a row for each way of retraining."}}
figure = show("fashion_mnist") if paths["fashion_mnist"] else None

# %% tags=["hide-input"]
fashion = families["fashion_mnist"]
text = family_tables(fashion, floors.get("fashion_mnist"), main)
withdrawn = gains_of_runs(paths["fashion_mnist"])
Markdown("\n\n".join([text or "Not run yet, or not among these runs.", withdrawn]))

# %% tags=["hide-input", "if-run"] mystnb={"figure": {"name": "fig-fashion-samples", "caption": "Fashion-MNIST: samples against the number of retrainings, for the first row and the first seed, from the same latents in every panel."}, "image": {"alt": "Grids of generated clothes by arm and number of retrainings."}}
first = list(fashion.values())[:1]
rows = arm_previews(first[0]) if first else []
last = min((len(previews) - 1 for _, previews in rows), default=0)
shown = [int(t) for t in np.unique(np.linspace(0, last, 5).astype(int))]
figure = plots.sample_grid(rows, shown) if rows else None

# %% tags=["hide-input"]
names = "retrainings seeds synthetic-first synthetic-last mix-worst mix-worst-lam"
summary = dict.fromkeys([*names.split(), "n-real", "passes"], "(not run)")
for runs in first:
    n, images = runs.n_real.max(), runs.n_images[runs.generation > 0].max()
    summary |= arm_summary(runs, floors["fashion_mnist"])
    summary |= {"n-real": int(n), "passes": f"{images / n:.2g}"}
for name, text in summary.items():
    glue(name, text, display=False)

# %% [markdown]
# *We see*, in the first row: after {glue:text}`retrainings` retrainings over {glue:text}`seeds` seed(s) the FID of the fully synthetic arm
# has gone from {glue:text}`synthetic-first` to {glue:text}`synthetic-last`. The worst mean of any arm that keeps the real data is
# {glue:text}`mix-worst`, at λ = {glue:text}`mix-worst-lam`.
#
# *What these runs are*: {glue:text}`n-real` real images and {glue:text}`passes` passes over as many in a retraining, from a first model
# trained here, each row by the protocol that it names. *What they are not*: colour images, the
# published networks, or a first model that is as good as theirs. These FIDs are in the features of a small classifier; they compare
# arms of one row, and nothing else. And a few retrainings tell arms apart, but not where an arm settles. Where the list under the table
# withdraws them, they show the machinery, not what retraining does: their sampler changes the variance of what it samples at every pass.
#
# ## Structure on a small scale: Fashion-MNIST at 14 × 14
#
# The study of images that have structure: 2 000 training images, all 10 000 test images held out, a sampler that keeps variance, a first model
# whose held-out loss is flat (`profile=fashion14`).

# %% tags=["hide-input"]
ids = ["figure-1-synthetic", "figure-1-half"]
verdicts = verdicts_list(find_claims(), evidence_of(paths["fashion_mnist14"]), ids)
table14 = family_tables(
    families["fashion_mnist14"], floors.get("fashion_mnist14"), main
)
Markdown("\n\n".join(filter(None, [table14, verdicts])))

# %% [markdown]
# ## Exercises
#
# :::{exercise} A shorter climb
# :label: ex-scale-ramp
# The learning rate of EDM climbs over 10 million images. How far would a retraining of EDM on CIFAR-10 reach if it climbed over 1 million, or a tenth of that, all else as published?
# :::
#
# :::{solution-start} ex-scale-ramp
# :class: dropdown
# :::
# With a climb as long as the retraining the mean rate is half of the nominal one; the EMA then is what holds the network back.

# %% tags=["solution"]
climbs = {"as published": edm} | {
    f"{r:g} million": replace(edm, lr_rampup_images=int(r * 1e6)) for r in (1, 0.1)
}
Markdown(implied_table(climbs))

# %% [markdown]
# :::{solution-end}
# :::
#
# :::{exercise} An EMA that forgets
# :label: ex-scale-ema
# Which half-life leaves a hundredth of the EMA on the old weights after a retraining of EDM on CIFAR-10? Compute it from $2^{-n/h}$, and predict what it does to the reach.
# :::
#
# :::{solution-start} ex-scale-ema
# :class: dropdown
# :::
# $h = n / \log_2 100$, about 0.15 of the budget. The reach no more than doubles: by the published flags it is the learning rate that limits it.

# %% tags=["solution"]
forgets = replace(edm, ema_halflife_images=int(edm.n_images / np.log2(100)))
Markdown(implied_table({"as published": edm, "1 % on the old weights": forgets}))

# %% [markdown]
# :::{solution-end}
# :::
#
# :::{exercise} What does it cost on your card?
# :label: ex-scale-cost
# Take the peak of a GPU that you have from its data sheet, and a utilisation that you believe in. How many hours is an arm of 20 retrainings of EDM on CIFAR-10? Run this notebook with
# `peak_tflops` and `utilisation`, and compare.
# :::
#
# :::{exercise} Moved little, or stable?
# :label: ex-scale-design
# Design the smallest set of runs that tells "EDM is stable for every λ" from "EDM moved little". Which flags do you change, which arms do you need, and what result would decide?
# :::

# %% [markdown]
# :::{admonition} Three things learnt
# :class: tip
#
# 1. By its published flags a retraining of EDM moves little, and one of OT-CFM much.
# 2. What a retraining costs can be said before it is run.
# 3. Presets hold every value of the paper's protocol with its source, as published and as intended.
# :::
#
# *What this chapter does not show*: CIFAR-10 or FFHQ-64: those runs need weights and a GPU. *Where to go next*: {doc}`../audit` for the published code, {doc}`../reproduce` to run a preset.
