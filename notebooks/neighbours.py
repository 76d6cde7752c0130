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
# # The neighbours: other ways to use synthetic data
#
# *The paper mixes the same real data with samples of the last model. Others replace, accumulate, subsample, or have new real data.
# Where do these lead, which weight should real data have, and when does keeping them not help?*

# %% tags=["parameters"]
n = 50
n_generations = 40
n_chains = 10000
seed = 0
scale = "by hand"

# %% tags=["hide-input"]
import numpy as np
from IPython.display import Markdown
from iterative_retraining.parameters import check_parameters
from iterative_retraining.seeding import stage_seed
from iterative_retraining.studies import plots
from iterative_retraining.studies.report.chapters import scale_note
from iterative_retraining.studies.theory.finite_samples import (
    mean_variance,
    optimal_weight,
    simulate_means,
)
from iterative_retraining.studies.theory.leaking import simulate_leaks
from myst_nb import glue

check_parameters(globals(), "n n_generations n_chains seed scale")
Markdown(scale_note(scale))

# %% [markdown]
# ## Five schemes, simulated exactly
#
# The engine, `retrain`, has six schemes for every model ({doc}`../setting`): `mix`, `fully_synthetic`, `accumulate`, `accumulate_subsample`,
# `fresh` and `weighted`. This chapter does not run it. It draws the estimates of a Gaussian mean from the exact distribution that the schemes give
# them, which costs next to nothing and allows any number of chains; tests compare that distribution with `retrain`'s.
#
# The model is the mean of a Gaussian, as in the chapter on finite samples; errors are in units of $\sigma^2/n$.
# *Replace* is fully synthetic retraining. *Mix* is the paper's, λ = 1. *Accumulate*
# keeps the samples of all generations {cite}`gerstgrasser2024model,dey2024universality`, *accumulate and subsample* draws $n$ from that pool
# {cite}`kazdan2024collapse`, *fresh* has new real data every time.
#
# :::{prf:proposition} Variances of the neighbours (derived here for the Gaussian mean)
# :label: prop-neighbours
# From $\mu_0 = \bar x$ on: replace $1 + t$; accumulate $\sum_{i=1}^{t+1} i^{-2} < \pi^2/6$; mix
# $\to 1 + \frac{\lambda}{1+2\lambda}$; fresh $\to \frac{1+\lambda}{1+2\lambda} < 1$; accumulate and subsample follows the recursion below.
# :::
#
# :::{prf:proof}
# *Replace* adds an independent error of variance $1/n$ each time. *Accumulate*: the mean of the pool of $n(t+1)$ data is
# $\mu_t$ itself, and $n$ new samples with mean $\mu_t + \xi/\sqrt n$ move it by $\xi / (\sqrt n\, (t+2))$. *Mix*: {prf:ref}`prop-three-errors`. *Fresh*:
# $v_{t+1} = (1 + \lambda + \lambda^2 v_t) / (1+\lambda)^2$, whose fixed point is the limit: old real data live on in the synthetic ones.
# *Accumulate and subsample*: let $M_t$ be the mean and $S_t$ the sum of squares of the pool of $N = n(t+1)$ data, and
# $\mu_t$ the mean of $n$ of them, drawn without replacement. Given the pool, $\mu_t$ has mean $M_t$ and variance
# $\frac{s_t^2}{n}(1 - \frac nN)$ with $s_t^2 = \frac{S_t - N M_t^2}{N - 1}$. And $S_{t+1} = S_t$ plus $n(1 + \mu_t^2)$ on average,
# $\mathbb E M_{t+1}^2 = \big( (t+1)^2\, \mathbb E M_t^2 + 2(t+1)\, \mathbb E M_t^2 + \mathbb E \mu_t^2 + \tfrac1n \big) / (t+2)^2$, because $\mathbb E M_t \mu_t = \mathbb E M_t^2$.
# :::

# %% mystnb={"figure": {"name": "fig-neighbours", "caption": "Error variance of a Gaussian mean under five schemes, n = 50, λ = 1: points simulated, lines exact, dotted their limits (accumulate π²/6, mix 4/3, fresh 2/3)."}, "image": {"alt": "On a log scale, replace grows without bound, accumulate and subsample rises to about three and flattens, accumulate, mix and fresh level off at their limits."}}
names = {"fully_synthetic": "replace", "accumulate_subsample": "accumulate, subsample"}
names |= {"accumulate": "accumulate", "mix": "mix, λ = 1", "fresh": "fresh, λ = 1"}
simulated, exact = {}, {}
for scheme, label in names.items():
    chains = min(n_chains, 3000)  # subsampling keeps every sample
    of = {"seed": stage_seed(seed, 1, scheme)}
    path = simulate_means(scheme, n, n_generations, chains, **of)
    simulated[label] = (path**2).mean(axis=1)
    exact[label] = mean_variance(scheme, n_generations, n=n)
limits = {"accumulate": np.pi**2 / 6, "mix, λ = 1": 4 / 3, "fresh, λ = 1": 2 / 3}
figure = plots.variances_over_time(simulated, exact, limits, log=True)

# %% tags=["hide-input"]
late = mean_variance("accumulate_subsample", 1000, n=n)[-1]
glue("subsampled", f"{late:.2f}", display=False)

# %% [markdown]
# Accumulating does better than replacing and, for large $t$, worse than mixing at any λ, as $\pi^2/6 > 3/2 > 1 + \frac{\lambda}{1+2\lambda}$. Subsampling the pool costs
# more, but hardly grows: after 1 000 generations its variance is {glue:text}`subsampled`.
#
# ## How much weight for real data?
#
# With fresh real data the weights need not be those of the numbers of data: let the new mean be
# $w$ times that of $n$ real data plus $1 - w$ times that of $\lambda n$ synthetic ones.
#
# :::{prf:proposition} The best weight
# :label: prop-weight
# The stationary variance
#
# $$ v = \frac{w^2 + (1-w)^2/\lambda}{1 - (1-w)^2} $$ (weighted-variance)
#
# is least where $w^2 = (1-w)/\lambda$, and is then $w$ itself. At λ = 1 that is $1/\varphi = 0.618$, one over the golden ratio.
# :::
#
# :::{prf:proof}
# With $u = 1 - w$: $v = w^2 + u^2 (v + 1/\lambda)$ has the solution stated. Its derivative in $u$ has the sign of $u/\lambda - (1-u)^2$,
# which gives the first claim; then $v = \frac{u/\lambda + u^2/\lambda}{1 - u^2} = \frac{u}{\lambda w} = w$.
# :::
#
# {cite:t}`he2025golden` found the golden ratio. In the paper's scheme, where the *same* real data come back every time, the best weight is 1: there
# synthetic data tell nothing new, and any weight on them adds noise.

# %% mystnb={"figure": {"name": "fig-weight", "caption": "Stationary error variance against the weight of the real data, with fresh real data every time: lines exact, by {eq}`weighted-variance`, points simulated, circles the minima, for three λ. Dashed: the diagonal on which all minima lie."}, "image": {"alt": "Three U-shaped curves whose minima lie on the diagonal; the one for lambda one at 0.618."}}
weights = np.linspace(0.15, 1.0, 18)
curves = {}
for lam in (0.5, 1.0, 4.0):
    of = {"lam": lam, "seed": stage_seed(seed, 2, f"weight{lam}")}
    paths = [
        simulate_means("fresh", 100, 60, n_chains, weight=w, **of) for w in weights
    ]
    line = [mean_variance("fresh", 600, lam=lam, weight=w)[-1] for w in weights]
    best = optimal_weight(lam)
    curves[f"λ = {lam:g}"] = (np.array([p[-1].var() for p in paths]), line, best)
figure = plots.variance_by_weight(weights, curves)

# %% [markdown]
# ## Where keeping the real data does not help
#
# Theorem 1 and the results on accumulation want a smooth likelihood. {cite:t}`barzilai2025models` prove that without such assumptions
# collapse can come at once, although every maximum-likelihood fit to real data is consistent and all real data are kept. A construction
# of ours that does this: let the data be uniform on $[0, 1]$, and the family hold
#
# - $p_\theta$, uniform on $[\theta, \theta + 1]$, and
# - $q_c$ for each $c$ outside $[0, 1]$: half its mass uniform on $[-\frac12, \frac32]$, half on the interval $c \pm e^{-1/d^2}$, with $d$ the distance of $c$ from $[0, 1]$.
#
# :::{prf:proposition} Consistent on real data, lost on its own (derived here)
# :label: prop-leak
# On $n$ real data the likelihood is maximal at $p_\theta$ with $|\theta| = O(1/n)$. After one generation of $n$ samples, mixed with or added to the real
# data, the maximum is some $q_c$, at total variation $\frac34$ from the truth, with probability tending to $\frac13$ as $n \to \infty$, and remains so for ever.
# :::
#
# :::{prf:proof}
# Real data lie in $[0, 1]$, where $q_c$ has the density $\frac14$ and $p_\theta$, for $\max x - 1 \le \theta \le \min x$, the density 1. Take the middle
# of these θ: $n|\theta| \to \frac12 |E_1 - E_2|$ with independent exponentials, so $|E_1 - E_2|$ is exponential. None of $n$ samples of $p_\theta$ leaves $[0, 1]$ with probability
# $(1 - |\theta|)^n \to \mathbb E e^{-|E_1 - E_2|/2} = \frac23$. If one does, at a distance $d = O(1/n)$, then $q_c$ there gains $1/d^2$, of order $n^2$, in the log-likelihood, and loses at most
# $2n \log 4$ elsewhere. From then on half of all samples fall on the spike, each with that gain.
# :::

# %% mystnb={"figure": {"name": "fig-leak", "caption": "Share of chains that have collapsed, n = 1 000, with 95 % intervals: although all real data are kept, and although the first model is within 1/n of the truth. Dotted: 1/3."}, "image": {"alt": "Two rising curves through one third at the first retraining, reaching about nine tenths after thirty."}}
few = min(n_chains, 5000)
leaks = {
    name: simulate_leaks(scheme, 1000, 30, few, seed=stage_seed(seed, 3, "leak"))
    for scheme, name in {"accumulate": "accumulate", "mix": "mix, λ = 1"}.items()
}
figure = plots.shares_collapsed({k: v == 0.75 for k, v in leaks.items()}, 1 / 3)

# %% tags=["hide-input"]
first = leaks["accumulate"]
share = (first[1] == 0.75).mean()
half = 1.96 * np.sqrt(share * (1 - share) / few)
Markdown(
    f"Median total variation of the first model: {np.median(first[0]):.1e}; collapsed after one retraining: "
    f"{share:.3f} ± {half:.3f}; after thirty: {(first[-1] == 0.75).mean():.3f} (accumulate)."
)

# %% [markdown]
# Two remarks. Not every family that is not smooth does this: for uniform distributions on $[0, \theta]$ the fit is the largest datum, no sample of the model exceeds it,
# and with the real data kept $\theta_t = \theta_0$ for ever. And the paper's $\mathcal G$ is a *local* maximum, found by fine-tuning: from $p_\theta$ no path leads to
# $q_c$. What protects there is the optimiser.
#
# ## What is known, what we see
#
# *The literature says* that replacing collapses, accumulating inflates the variance by at most $\pi^2/6$, subsampling the pool degrades slowly, and
# that smoothness matters.
#
# *We see* all four, with the exact curves on the simulations. For the paper's own scheme the error variance ends below that of
# accumulation for every λ, since it is bounded by $\frac32 < \pi^2/6$; only fresh real data make the estimate better than the first, and then
# the weight matters.

# %% [markdown]
# ## Exercises
#
# :::{exercise} Half as many synthetic data
# :label: ex-neighbours-weight
# With fresh real data and λ = 0.5, is the best weight of the real data above or below $1/\varphi$? Solve $w^2 = (1-w)/\lambda$, and say what the counts alone, $1/(1+\lambda)$, would give.
# :::
#
# :::{solution-start} ex-neighbours-weight
# :class: dropdown
# :::
# Above, $w = \frac{\sqrt{1+4\lambda} - 1}{2\lambda}$; the counts give real data too little weight, and the less the larger λ is.

# %% tags=["solution"]
lines = [
    f"| {lam:g} | {optimal_weight(lam):.3f} | {1 / (1 + lam):.3f} |"
    for lam in (0.25, 0.5, 1.0, 2.0, 10.0)
]
head = "| λ | best weight, and least variance | weight by counts |"
Markdown("\n".join([head, "|---|---|---|", *lines]))

# %% [markdown]
# :::{solution-end}
# :::
#
# :::{exercise} Accumulate or mix?
# :label: ex-neighbours-accumulate
# In the long run the mix beats accumulating for every λ. Is that so from the first retraining on, at λ = 1? Guess from {numref}`fig-neighbours`, where the two curves lie close.
# :::
#
# :::{solution-start} ex-neighbours-accumulate
# :class: dropdown
# :::
# Both begin with $1 + \frac14$; after that accumulating is worse.

# %% tags=["solution"]
times = [1, 2, 5, 20, 1000]
accumulate, mix = (mean_variance(name, 1000)[times] for name in ("accumulate", "mix"))
lines = [
    f"| {t} | {a:.3f} | {m:.3f} |"
    for t, a, m in zip(times, accumulate, mix, strict=True)
]
head = "| retrainings | accumulate | mix, λ = 1 |"
Markdown("\n".join([head, "|---|---|---|", *lines]))

# %% [markdown]
# :::{solution-end}
# :::
#
# :::{exercise} A window
# :label: ex-neighbours-window
# Let the training set be the real data and the samples of the last three generations. Between which two curves of {numref}`fig-neighbours` does its variance lie? Write the recursion.
# :::
#
# :::{exercise} A spike less sharp
# :label: ex-neighbours-leak
# In {prf:ref}`prop-leak` the half width of the spike is $e^{-1/d^2}$. Does the proof still work with $d^2$ in its place? What does that say about which families are safe?
# :::

# %% [markdown]
# :::{admonition} Three things learnt
# :class: tip
#
# 1. Replacing collapses, accumulating and mixing stay bounded, fresh data make the estimate better than the first.
# 2. With fresh data there is a best weight for them; with the same real data every time it is 1.
# 3. Without smoothness, keeping all real data does not help.
# :::
#
# *What this chapter does not show*: the schemes on networks: the engine has them, their sweeps are not published. *Where to go next*: {doc}`../setting` for how each scheme is run, {doc}`claims` for what became of the claims.
