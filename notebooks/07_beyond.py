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
# # Beyond the paper: filters, preferences, and going back
#
# *The paper takes whatever the last model draws. Which of its samples should one take, what do preferences do to a model that
# is trained on what was preferred, and can one go back?* The slides end with filtering as future work.

# %% tags=["parameters"]
run_dirs = []
n_chains = 2000
seed = 0
scale = "by hand"

# %% tags=["hide-input"]
from functools import partial

import numpy as np
from IPython.display import Markdown
from iterative_retraining.parameters import check_parameters
from iterative_retraining.runs.results import find_results, of_dataset, read_floor
from iterative_retraining.seeding import stage_seed
from iterative_retraining.studies import plots
from iterative_retraining.studies.report.chapters import read_selected, scale_note
from iterative_retraining.studies.report.claims import (
    claims_table,
    contracts_list,
    read_claims,
)
from iterative_retraining.studies.report.comparisons import arm_table
from iterative_retraining.studies.report.evidence import read_evidence
from iterative_retraining.studies.theory import selected
from iterative_retraining.studies.theory.ecosystem import covariance_over_time

check_parameters(globals(), "run_dirs n_chains seed scale")
own = of_dataset(run_dirs or find_results(), "digits")
results = find_results()[0].parent
claims, evidence = read_claims(results.parent / "claims.yml"), read_evidence(results)
Markdown(scale_note(scale))

# %% [markdown]
# ## Filtering: a tournament at one keep rate
#
# *Does a filter make the fully synthetic loop stable? Does one matter when real data are in the mix? Whom does it lose?*
#
# A *selector* is a parameter of a run. For every sample that a scheme asks for, 1 / keep rate candidates are drawn, and every selector keeps as many of as
# many. What is measured is the model, that is its samples before the choice, so a filter cannot polish its own figures.
#
# | selector | keeps |
# |---|---|
# | `random` | any: the control |
# | `fld_quality`, `fld_memorisation` | the highest feature likelihood score {cite}`jiralerspong2023feature`, with half of the training images in the place of held-out ones; those that copy least |
# | `density` | those nearest to their fifth real neighbour in feature space |
# | `confidence` | those of whose class a classifier is surest |
# | `discriminator` | each with a probability in proportion to its odds to be real {cite}`azadi2019discriminator`, by a logistic regression that has not seen it |
# | `herding` | those that together have the kernel mean of the real images {cite}`chen2010super` |
# | `kmeans` | of every cluster of real images its real share |
# | `likelihood`, top or bottom | those that the model itself finds likeliest, or least likely; exact for the spline flow |
# | `verifier` | by the exact odds, where the density of the real data is known |
# | `choice` | one of each few, by a reward; see below |
#
# | set-up | |
# |---|---|
# | data, model | digits, n = 1 500; EDM, with the accurate sampler and θ₀ of {doc}`claims`; likelihood: a spline flow |
# | arms | each selector, fully synthetic and at λ = 1; keep rate 0.5 |
# | size | 10 retrainings of 20 epochs, three seeds, which share θ₀ |
# | controls | `random`; the arms without a selector |
#
# ### A filter on a Gaussian, exactly
#
# Let a sample $x$ be kept with a probability in proportion to $w(x) = e^{-(x - c)^2 / 2\omega^2}$, so that what is kept has the density
# $p_\theta w$ up to a constant. Let the model be a Gaussian, fitted by maximum likelihood to infinitely many samples, and the real
# data $\mathcal N(0, \sigma^2)$.
#
# :::{prf:proposition} Filtered retraining (derived here)
# :label: prop-filtered
# On filtered samples alone $1/v_t = 1/v_0 + t/\omega^2$, and the mean goes to $c$: collapse, like $\omega^2/t$. With 1 part of real data to λ parts of filtered
# samples and $c = 0$ there is one fixed point,
#
# $$ v = \frac{\sigma^2 - \omega^2 + \sqrt{(\sigma^2 - \omega^2)^2 + 4(1+\lambda)\sigma^2\omega^2}}{2(1+\lambda)} , $$ (filtered-fixed-point)
#
# and gaps to it shrink by $\frac{\lambda}{1+\lambda}\frac{\omega^2}{v+\omega^2}$ in the mean, faster in the variance.
# :::
#
# :::{prf:proof}
# A product of Gaussians has the sum of their precisions, which gives the first claim. In the mix $(1+\lambda) v = \sigma^2 + \lambda \frac{v\omega^2}{v+\omega^2}$, a quadratic whose
# other root is negative; the derivative of the right-hand side over $1+\lambda$ is $\frac{\lambda}{1+\lambda}\big(\frac{\omega^2}{v+\omega^2}\big)^2$, and that of the mean has one factor less.
# :::
#
# So a filter does not stop the collapse of the fully synthetic loop. It is its cause even with infinitely many samples, where the loop without a filter
# stands still. With real data in the mix the filter narrows the model, {eq}`filtered-fixed-point`, at most to $\sigma^2/(1+\lambda)$, and it contracts faster than without. An optimal discriminator is
# another matter: its odds are $p/p_\theta$, which no filter of a fixed shape is.

# %% mystnb={"figure": {"name": "fig-filtered", "caption": "Variance of a Gaussian that is retrained on filtered samples, ω = σ: points are means of simulated chains with n = 500, lines exact for infinite n, dotted the fixed points of the mix."}, "image": {"alt": "On a log scale, the variance of the loop on filtered samples alone falls like one over t; those of the mixes level off at their fixed points, lower for larger lambda."}}
curves = {}
for lam in (None, 0.5, 1.0, 5.0):
    of = {"width": 1.0, "lam": lam, "seed": stage_seed(seed, 0, f"filter{lam}")}
    _, simulated = selected.simulate_filtered(500, 25, n_chains, **of)
    step = partial(selected.filtered, width=1.0)
    _, exact = selected.moments_by_generation(step, 25, lam)
    limit = 0.0 if lam is None else selected.filtered_fixed_point(lam, 1.0)[1]
    name = "filtered samples alone" if lam is None else f"λ = {lam:g}"
    curves[name] = (simulated.mean(axis=1), exact, limit)
figure = plots.filtered_variances(curves)

# %% [markdown]
# ### The contract
#
# Written and committed before any of these runs.

# %% tags=["hide-input"]
filters = [c for c in claims if c.id.startswith(("filter", "likelihood-rank"))]
Markdown(contracts_list(filters))

# %% [markdown]
# ### What was found

# %% tags=["hide-input"]
how = "snakemake sweep --cores all --config profile=digits_filters"
families = read_selected(own)
metrics = ["fid", "precision", "recall", "rarest_tenth"]
rows = {
    f"{name}\n{scheme.replace('_', ' ')}": table
    for name, runs in families.items()
    for scheme, table in runs.groupby("scheme")
    if (table.selector != "").any()
}
chosen = {name: runs[runs.selector != ""] for name, runs in rows.items()}
floors = [read_floor(runs.path.iloc[0]) for runs in chosen.values()]
Markdown(
    "\n\n".join(
        f"**{', '.join(name.splitlines())}**\n\n{arm_table(runs, floors[0], metrics)}"
        for name, runs in chosen.items()
    )
    or f"Not run yet: `{how}`, and the same with `digits_filters_flow`."
)

# %% tags=["hide-input", "if-run"] mystnb={"figure": {"name": "fig-filters", "caption": "Digits: the tournament of selectors, a row for each scheme; keep rate 0.5. Lines: mean over seeds; bands: their range; grey: real against real."}, "image": {"alt": "FID, precision, recall and the share of the rarest tenth against retrainings, a curve for each selector, a row for each scheme."}}
figure = plots.family_curves(rows, floors[0], metrics) if rows else None

# %% tags=["hide-input"]
Markdown(claims_table(filters, evidence))

# %% [markdown]
# *At paper scale* a selector is the same parameter, `-p selector discriminator -p keep_rate 0.5`, and costs as many more samples as it throws away; the features
# are then Inception's. A linear discriminator on 2 048 features and 50 000 images is cheap beside a retraining.
#
# What the loop does to a class of which there is little is a run of its own kind: `-p rare_class 8 -p rare_share 0.1` leaves a tenth of one class in the
# real data, and `rarest_class` in the ledger follows it. Contract and verdict, *rare-class-is-lost-alone*, are in {doc}`claims`; the sweep is `profile=digits_rare`.
#
# ## Curation as preference
#
# *People keep the images that they like, and models are trained on what was kept. Where does that lead?* In the model of {cite:t}`ferbach2024self` one of
# $K$ samples is kept, $x_k$ with probability $e^{r(x_k)} / \sum_j e^{r(x_j)}$. For $K \to \infty$ that is the filter $w = e^r$ of above. For pairs, $K = 2$,
# a Gaussian and the reward $r(x) = \beta x$ all is exact:
#
# :::{prf:proposition} Retraining on the preferred of pairs (derived here)
# :label: prop-chosen
# Let $g(s) = \frac{1}{\sqrt 2} \mathbb E[Z \tanh(sZ/\sqrt 2)]$ with a unit Gaussian $Z$: it rises from $s/2$ to $1/\sqrt\pi$. The preferred of pairs of $\mathcal N(\mu, s^2)$ have the mean $\mu + \delta$ and
# the variance $s^2 - \delta^2$, $\delta = s\, g(\beta s)$. On them alone the model drifts for ever, like $\frac 2\beta \log t$, while its variance goes like $\frac{4}{\beta^2 t}$. With 1 part of real data to λ
# parts of them a fixed point has the mean $\lambda\delta$ and the variance $s^2 = \sigma^2 + \lambda^2\delta^2$. It exists for every β if and only if $\lambda < \sqrt\pi$.
# :::
#
# :::{prf:proof}
# The preferred is the mean of the pair plus half of their difference $d$, or less it. The mean of the pair is independent of $d$, and the square of $d/2$ does not tell which was preferred; so
# second moments about $\mu$ are those of all, and the mean is $\mu + \frac 12 \mathbb E[d \tanh(\beta d/2)]$ with $d \sim \mathcal N(0, 2s^2)$. Mixing gives the equations of the fixed point; inserted into each other they are
# $s^2 (1 - \lambda^2 g(\beta s)^2) = \sigma^2$. The left side is below $\sigma^2$ at $s = \sigma$. As $g < 1/\sqrt\pi$, it grows without bound if $\lambda < \sqrt\pi$; else it stays below $\sigma^2$ once β is large.
# :::
#
# So with the real data in the mix a preference does *not* narrow the model: it moves it and makes it wider, by what lies between those who were preferred and the rest.
# And real data hold it only while there are enough of them.

# %% mystnb={"figure": {"name": "fig-curation", "caption": "A Gaussian retrained on the preferred of pairs of its samples, exactly. Left: the variance of the fixed point against λ for three strengths β of the preference, real variance 1; dotted √π, beyond which a strong preference has none. Right: mean and variance on preferred samples alone."}, "image": {"alt": "Left: curves that rise with lambda, the strongest to infinity at the square root of pi. Right, on log axes: variances that fall like one over t and means that go on rising slowly."}}
lams = np.linspace(0, 3, 121)
fixed = {
    f"β = {beta:g}": np.array([selected.chosen_fixed_point(x, beta)[1] for x in lams])
    for beta in (0.5, 2.0, 100.0)
}
alone = {
    f"β = {beta:g}": selected.moments_by_generation(
        partial(selected.chosen, beta=beta), 1000
    )
    for beta in (0.5, 2.0)
}
figure = plots.curation_panels(lams, fixed, alone, np.sqrt(np.pi))

# %% tags=["hide-input"]
curation = [c for c in claims if c.id.startswith(("chosen", "curation"))]
Markdown(
    "\n\n".join((contracts_list(curation), claims_table(curation, evidence)))
    + f"\n\nThe arms of `choice` are among those of the tournament: `{how}`."
)

# %% [markdown]
# ## Going back
#
# *If a retraining on own samples takes a model away from the data, does a step the other way bring it nearer?* Neon (arXiv 2510.03597) takes
# $\theta_0 - w(\theta_1 - \theta_0)$. In the package that is `going_back(start, retrained, weight)`, on the states of any network. The
# benchmark takes finished runs, chooses $w$ by FID against one half of the held-out images, and tells what that gains, or loses, on θ₀ against the other half and against the training
# images; $w = 0$ is to do nothing, and $w$ below 0 is to stop early.
#
# Not run yet: `python benchmarks/going_back.py runs/digits_edm/digits-edm-fully_synthetic-seed*`.
#
# ## Several models that feed each other
#
# With `retrain_ecosystem(models, real, Ecosystem(lam), ...)` model $i$ learns from all real data and from $λ_{ij} n$ samples of model $j$. Near
# the fixed point of a well-specified family the mean parameters follow $J_{ij} = λ_{ij} / (1 + \sum_k λ_{ik})$: with real data the
# row sums, and so the spectral radius, lie below 1 whatever the matrix; without them it is 1. Below, the variance after ten retrainings on synthetic data
# alone, in units of the sampling variance at $n$: each of $k$ models on $n$ samples of its own, on $n$ samples pooled of all, and on the $k n$
# samples of all.

# %% tags=["hide-input"]
lines = ["| k | alone | pooled, n in all | pooled, k n in all |", "|---|---|---|---|"]
for k in (1, 2, 4, 8):
    own = [np.eye(k), np.full((k, k), 1 / k), np.ones((k, k))]
    found = [covariance_over_time(lam, 10, real=False)[-1, 0, 0] for lam in own]
    lines.append(f"| {k} | " + " | ".join(f"{value:.3g}" for value in found) + " |")
Markdown("\n".join(lines))

# %% [markdown]
# Against an error that is statistical, pooling at an equal number of samples gains nothing; what helps is more samples. Whether models whose
# *biases* differ slow each other's collapse has not been run.
#
# ## What is known, what we see
#
# *The literature says* that choosing by a reward maximises it and loses variance, and that keeping real data bounds the drift {cite}`ferbach2024self`.
#
# *We see*, exactly: a filter of a fixed shape makes a Gaussian collapse even with infinite data; with real data it has one attracting fixed point
# that is narrower; a preference has one that is wider, and none at all if it is strong and $\lambda \ge \sqrt\pi$. Whether images do as Gaussians do the tables above say as far as there are runs.

# %% [markdown]
# ## Exercises
#
# :::{exercise} A wider filter
# :label: ex-beyond-width
# A filter twice as wide as the real data, ω = 2σ, is in the mix at λ = 1. Does the model come nearer to the real variance than with ω = σ? What is the limit of {eq}`filtered-fixed-point` for $\omega \to \infty$, and for $\omega \to 0$?
# :::
#
# :::{solution-start} ex-beyond-width
# :class: dropdown
# :::
# Nearer: without a filter the variance is the real one, and with the narrowest it is $\sigma^2/(1+\lambda)$.

# %% tags=["solution"]
lines = [
    f"| {width:g} | {selected.filtered_fixed_point(1.0, width)[1]:.3f} |"
    for width in (0.1, 0.5, 1.0, 2.0, 10.0)
]
Markdown("\n".join(["| ω / σ | variance at λ = 1, σ = 1 |", "|---|---|", *lines]))

# %% [markdown]
# :::{solution-end}
# :::
#
# :::{exercise} Too much of what is liked
# :label: ex-beyond-choice
# At λ = 2, beyond $\sqrt\pi$, a strong preference has no fixed point. Has a weak one? Guess where the border lies.
# :::
#
# :::{solution-start} ex-beyond-choice
# :class: dropdown
# :::
# A weak one has: the pull of a preference grows with β. The border lies between 0.5 and 1.

# %% tags=["solution"]
strengths = (0.1, 0.3, 0.5, 1.0, 2.0)
variances = [selected.chosen_fixed_point(2.0, beta)[1] for beta in strengths]
lines = [
    f"| {beta:g} | {f'{v:.3f}' if np.isfinite(v) else 'there is none'} |"
    for beta, v in zip(strengths, variances, strict=True)
]
Markdown(
    "\n".join(["| β | variance of the fixed point at λ = 2 |", "|---|---|", *lines])
)

# %% [markdown]
# :::{solution-end}
# :::
#
# :::{exercise} The best of four
# :label: ex-beyond-four
# Let the best of $K = 4$ be kept, not of pairs. Does {prf:ref}`prop-chosen` still hold in its second moments? Which step of the proof needs pairs?
# :::
#
# :::{exercise} A filter of your own
# :label: ex-beyond-selector
# Write a selector that keeps the samples whose class is rarest so far (`CONTRIBUTING.md` has an example in twenty lines), and predict what it does to the share of the rarest tenth and to precision.
# :::
#
# :::{admonition} Three things learnt
# :class: tip
#
# 1. A filter of a fixed shape does not stop the collapse of the fully synthetic loop: it causes one, even with infinitely many samples.
# 2. With real data in the mix a filter narrows the model, and a preference moves it and makes it wider.
# 3. Pooling models gains nothing against an error that is statistical; more samples do.
# :::
#
# *What this chapter does not show*: more of the tournament on images than the tables above have, and going back on finished runs. *Where to go next*: {doc}`neighbours` for schemes that keep everything,
# {doc}`claims` for what became of the contracts.
