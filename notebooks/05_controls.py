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
# # Images: what else could explain it
#
# *An arm degrades: is it the synthetic data, or the sampler, the number of real images seen, a start that had not converged, or the
# metric?* Each has a control here, and each control a contract that was written before its runs.

# %% tags=["parameters"]
run_dirs = []
scale = "by hand"

# %% tags=["hide-input"]
from IPython.display import Markdown
from iterative_retraining.parameters import check_parameters
from iterative_retraining.runs.results import find_results, of_dataset, read_floor
from iterative_retraining.status import stale_note
from iterative_retraining.studies import plots
from iterative_retraining.studies.report.ages import ages_table, effects
from iterative_retraining.studies.report.chapters import scale_note
from iterative_retraining.studies.report.claims import find_claims, verdicts_list
from iterative_retraining.studies.report.collapse import collapse_table
from iterative_retraining.studies.report.controls import (
    by_sampler,
    exposure_table,
    gains_table,
)
from iterative_retraining.studies.report.evidence import evidence_of
from iterative_retraining.studies.report.groups import main_groups, read_groups
from iterative_retraining.studies.theory.ages import age_weights, mix_of_a_linear_error

check_parameters(globals(), "run_dirs scale")
run_dirs = of_dataset(run_dirs or find_results(), "digits")
runs = read_groups(run_dirs)
groups, floor = main_groups(runs), read_floor(run_dirs[0])
claims, evidence = find_claims(), evidence_of(run_dirs)
Markdown("\n\n".join(filter(None, [scale_note(scale, run_dirs), stale_note(run_dirs)])))

# %% [markdown]
# ## The sampler
#
# A sampler with a finite number of steps changes the variance of what it samples even where the score is exact. On a Gaussian the factor
# is known exactly, step by step, and the loop raises it to the power of the number of retrainings. Along the eigenvectors of the covariance
# of the digits, of those that grey levels resolve, one pass multiplies the standard deviation by:

# %% tags=["hide-input"]
Markdown(gains_table("digits"))

# %% [markdown]
# A sampler that widens narrow directions would hide a loss of variance, one that narrows them would add to it. So the fully synthetic arm is
# to be run with two samplers from the same seeds and budgets; the figure shows what has been run.

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-sampler", "caption": "The fully synthetic arm and λ = 1 by sampler: variance of pixels, FID and precision against the number of retrainings. Lines: mean over seeds; bands: their range. Grey: real images."}, "image": {"alt": "Panels of pixel variance, FID and precision against retrainings, a curve for each sampler."}}
figure = plots.sampler_curves(by_sampler(runs), floor)

# %% tags=["hide-input"]
ids = ["sampler-hides-variance-loss-edm", "sampler-hides-variance-loss-otcfm"]
Markdown(verdicts_list(claims, evidence, [*ids, "mixing-keeps-variance"]))

# %% [markdown]
# ## The budget: fewer real images, or synthetic ones?
#
# At an equal budget a larger λ shows the network fewer real images: 1/(1 + λ) of them. Two controls tell this exposure from contamination:
# λ = 0 at a part of the budget (as many real images, no synthetic ones), and λ at 1 + λ times the budget (as many real images as λ = 0, and
# the synthetic ones besides).

# %% tags=["hide-input"]
Markdown(exposure_table(runs))

# %% tags=["hide-input"]
Markdown(verdicts_list(claims, evidence, ["exposure-part", "contamination-part"]))

# %% [markdown]
# ## The ages of the data: predicted before measuring
#
# At generation $t$ of a mix a share $1/(1+λ)$ of what is learnt from is real; the rest are samples of the generation before, which learnt
# from such a mix in turn. Followed back, the data are a mixture over ages: the weight of what has gone through $k$ models is
#
# ```{math}
# :label: ages
# w_k = \frac{1}{1+λ} \left( \frac{λ}{1+λ} \right)^k, \quad k < t, \qquad w_t = \left( \frac{λ}{1+λ} \right)^t .
# ```
#
# If effects add up over ages, all arms follow from the fully synthetic one: effect(λ) = $c \sum_k w_k$ [fully synthetic at $k$ − control at $k$].
# Two cases can be worked out. An error that acts linearly on what is read off, as the gain of a sampler does on a variance, follows
# {eq}`ages` exactly, with $c = 1$. An error that is statistical alone does not: independent draws average out in the larger set of a mix,
# and in any exponential family, to first order in $1/n$, $c(λ) = 1/(1 + 2λ)$, another constant for every λ. So $c$ tells the kinds of error
# apart. Here $c$ is set at λ = 0.5 and tested elsewhere:

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-ages", "caption": "Left: the weights of ages at generation 10. Right: what a mix changes against λ = 0, mean of the second half of the retrainings: seen, with 95 % intervals over seeds, and predicted from the fully synthetic arm with one constant a metric, set at λ = 0.5."}, "image": {"alt": "On a log axis the weights of ages fall by λ/(1+λ) a step; then panels of precision, density and FID against λ, points with intervals and a predicted line where there are runs."}}
seen = {name: effects(table) for name, table in groups.items()}
weights = {lam: age_weights(lam, 10) for lam in (0.1, 0.5, 1.0, 2.0, 5.0)}
figure = plots.ages_panels(weights, seen, ["precision", "density", "fid"])

# %% tags=["hide-input"]
parts = (f"**{name}**\n\n{ages_table(table)}" for name, table in groups.items())
Markdown("\n\n".join(parts))

# %% tags=["hide-input"]
ids = [claim.id for claim in claims if claim.id.startswith("ages-")]
Markdown(verdicts_list(claims, evidence, ids))

# %% [markdown]
# ## What is meant by collapse?
#
# Papers mean different things by it. Here is what each definition says of each arm: whether it moves towards collapse in the second half of
# its retrainings faster than the control does (slope a retraining, less that of λ = 0 of the same seed, with its 95 % interval).

# %% tags=["hide-input"]
Markdown(collapse_table(groups))

# %% tags=["hide-input"]
Markdown(verdicts_list(claims, evidence, ["definitions-agree"]))

# %% [markdown]
# ## Exercises
#
# :::{exercise} How old are the data?
# :label: ex-controls-age
# By {eq}`ages`, through how many models has a datum gone on average, at generation 10, for λ = 0.1, 1 and 5? And in the fully synthetic loop?
# :::
#
# :::{solution-start} ex-controls-age
# :class: dropdown
# :::
# About λ, as long as that is small against $t$; in the fully synthetic loop $t$ itself.

# %% tags=["solution"]
mean_age = {lam: age_weights(lam, 10) @ range(11) for lam in (0.1, 0.5, 1.0, 5.0)}
lines = [f"| {lam:g} | {age:.2f} |" for lam, age in mean_age.items()]
Markdown("\n".join(["| λ | mean age at t = 10 |", "|---|---|", *lines]))

# %% [markdown]
# :::{solution-end}
# :::
#
# :::{exercise} One per cent
# :label: ex-controls-gain
# A sampler multiplies every standard deviation by 0.99. What becomes of the variance after twenty retrainings, fully synthetic, and at λ = 1?
# :::
#
# :::{solution-start} ex-controls-gain
# :class: dropdown
# :::
# Fully synthetic it is multiplied twenty times; in the mix the real data stop it after about λ passes.

# %% tags=["solution"]
mixed = {
    lam: mix_of_a_linear_error(lam, 0.99**2 - 1, 20)[-1] for lam in (0.5, 1.0, 5.0)
}
told = [f"at λ = {lam:g}: {variance:.3f}" for lam, variance in mixed.items()]
Markdown("; ".join([f"Fully synthetic: {0.99**40:.3f}", *told]) + ".")

# %% [markdown]
# :::{solution-end}
# :::
#
# :::{exercise} Equal real images
# :label: ex-controls-budget
# An arm at λ = 3 is to see as many real images in a retraining as λ = 0 does. By how much must its budget grow? Which of the two controls of exposure is that?
# :::
#
# :::{exercise} Definitions that disagree
# :label: ex-controls-collapse
# Invent a sequence of models whose variance goes to 0 while precision rises, and one whose FID diverges while recall rises. Which rows of the table of definitions would call each of them a collapse?
# :::
#
# :::{admonition} Three things learnt
# :class: tip
#
# 1. A sampler's own gain acts at every retraining. Before a loop is said to collapse, or not to, its sampler has to be measured.
# 2. An equal budget is a choice: it hands a larger λ fewer real images. What contamination does is what is left when that is controlled.
# 3. "Collapse" is no single thing: the definitions are about different numbers, and they need not agree.
# :::
#
# *What this chapter does not show*: other data than digits, networks of another size, or the paper's own budgets. *Where to go next*: {doc}`06_paper_scale`.
