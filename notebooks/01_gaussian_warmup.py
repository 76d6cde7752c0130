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
# # The Gaussian warm-up
#
# *What happens to the simplest of generative models, a Gaussian, when it is retrained on its own samples alone? And when
# real data stay in the mix?*

# %% tags=["parameters"]
n = 100
n_generations = 1000
n_chains = 20000
seed = 0
scale = "by hand"

# %% tags=["hide-input"]
import numpy as np
import pandas as pd
from IPython.display import Markdown
from iterative_retraining.models.gaussian import Gaussian
from iterative_retraining.parameters import check_parameters
from iterative_retraining.retrain import retrain
from iterative_retraining.schemes import FullySynthetic
from iterative_retraining.seeding import stage_seed
from iterative_retraining.studies import plots
from iterative_retraining.studies.report.arms import arm_label
from iterative_retraining.studies.report.chapters import scale_note
from iterative_retraining.studies.report.comparisons import interval
from iterative_retraining.studies.theory.gaussian_chains import (
    contraction,
    expected_std,
    log_std_drift,
    simulate_cov_factors,
    simulate_std,
)
from myst_nb import glue
from scipy import stats

check_parameters(globals(), "n n_generations n_chains seed scale")
Markdown(scale_note(scale))

# %% [markdown]
# ## Fully synthetic retraining collapses
#
# One dimension, $n$ data, the unbiased variance. From the model $\mathcal N(\mu_t, \sigma_t^2)$ draw
# $X_j = \mu_t + \sigma_t Z_j$, $j = 1..n$, and learn
#
# $$ \mu_{t+1} = \frac1n \sum_j X_j, \qquad \sigma_{t+1}^2 = \frac1{n-1} \sum_j (X_j - \mu_{t+1})^2 . $$ (gaussian-step)
#
# :::{prf:proposition} Gaussian collapse; the number is that of {cite}`bertrand2024stability`
# :label: paper-proposition-1
# For every initial mean and covariance, iteratively learning a single multivariate Gaussian solely on its own samples
# yields model collapse: there is $\alpha < 1$ with $\mathbb E \sqrt{\Sigma_t} \preceq \alpha^t \sqrt{\Sigma_0} \to 0$.
# :::
#
# In one dimension the constant is known exactly, and one process has *three* rates at once.
#
# :::{prf:proposition} Three rates of one process (derived here)
# :label: prop-three-rates
# Let $\sigma_0$ be fixed, and $\psi$ the digamma function. Then
#
# 1. mean: $\mathbb E\,\sigma_t = \alpha(n)^t \sigma_0$ with
#    $\alpha(n) = \sqrt{\tfrac{2}{n-1}}\; \Gamma(\tfrac n2) / \Gamma(\tfrac{n-1}2) \approx 1 - \tfrac1{4n}$;
# 2. geometric mean: $\exp \mathbb E \log \sigma_t = \sigma_0 \exp\!\big(\tfrac t2 \big[\psi(\tfrac{n-1}2) - \log\tfrac{n-1}2\big]\big)
#    \approx \sigma_0 e^{-t/2n}$, which the median follows;
# 3. mean square: $\mathbb E\,\sigma_t^2 = \sigma_0^2$ for every $t$, although $\sigma_t \to 0$ almost surely.
# :::
#
# :::{prf:proof}
# By Cochran's theorem $\sigma_{t+1}^2 = \sigma_t^2\, C_t / (n-1)$ with independent $C_t \sim \chi^2_{n-1}$. Independence
# turns the mean of the product into a product of means: $\mathbb E \sqrt{C/(n-1)} = \alpha(n)$ gives (1), $\mathbb E C = n-1$
# gives (3). Taking logarithms gives a sum of independent terms with mean
# $\mathbb E \log C - \log(n-1) = \psi(\tfrac{n-1}2) - \log \tfrac{n-1}2 < 0$, which gives (2); the law of large numbers makes it
# almost sure.
# :::
#
# None of this needs samples: given $\sigma_t$, the next $\sigma_{t+1}$ is a chi-square draw, so a generation costs two
# numbers a chain whatever $n$; the two of {eq}`gaussian-step` are independent.

# %%
t = np.arange(n_generations + 1)
mean, std = simulate_std(n, n_generations, n_chains, seed=seed)
simulated = {
    "mean: α(n)^t": std.mean(axis=1),
    "median: exp(t · drift)": np.median(std, axis=1),
    "root mean square: 1": np.sqrt((std**2).mean(axis=1)),
}
exact = dict(
    zip(
        simulated,
        (expected_std(n, t), np.exp(t * log_std_drift(n)), np.ones(len(t))),
        strict=True,
    )
)

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-three-rates", "caption": "One process, three rates. Grey: single chains of σ_t under fully synthetic retraining. Points: summaries over all chains. Lines: the exact rates of {prf:ref}`prop-three-rates`. The simulated root mean square strays from its constant exact value: the expectation is carried by chains too rare to be drawn."}, "image": {"alt": "Log-scale curves of the standard deviation against retrainings; mean and median points lie on their decaying exact lines, the root mean square stays near one at first and then falls below its exact line."}}
figure = plots.std_over_time(std, simulated, exact)

# %% tags=["hide-input"]
error = std[-1].std() / np.sqrt(n_chains)
glue("alpha", f"{contraction(n):.6f}", display=False)
glue("mean-exact", f"{expected_std(n, n_generations):.4f}", display=False)
glue("mean-simulated", f"{std[-1].mean():.4f} ± {1.96 * error:.4f}", display=False)
glue("median-exact", f"{np.exp(n_generations * log_std_drift(n)):.5f}", display=False)
glue("median-simulated", f"{np.median(std[-1]):.5f}", display=False)
glue("rms-simulated", f"{simulated['root mean square: 1'][-1]:.3f}", display=False)
glue("n", n, display=False)
glue("generations", n_generations, display=False)
glue("chains", n_chains, display=False)

# %% [markdown]
# With $n =$ {glue:text}`n` the constant is $\alpha(n) =$ {glue:text}`alpha`. After {glue:text}`generations` retrainings of
# {glue:text}`chains` chains:
#
# | | exact | simulated |
# |---|---|---|
# | mean of $\sigma_t$ | {glue:text}`mean-exact` | {glue:text}`mean-simulated` (95 %) |
# | geometric mean, median of $\sigma_t$ | {glue:text}`median-exact` | {glue:text}`median-simulated` |
# | root mean square of $\sigma_t$ | 1 | {glue:text}`rms-simulated` |
#
# *How to read {numref}`fig-three-rates`.* The typical chain (median) collapses twice as fast as the mean, and the mean
# square does not collapse at all. So "the variance collapses" is true of almost every chain and false in expectation: a
# Monte-Carlo mean of $\sigma_t^2$ misleads, since it hangs on a few chains, and falls once none of those that carry the
# expectation is drawn.

# %% [markdown]
# ## More dimensions collapse faster
#
# Given $\Sigma_t$, $(n-1)\Sigma_{t+1}$ has the Wishart distribution with scale $\Sigma_t$ and $n-1$ degrees of freedom. In Bartlett's
# decomposition its determinant is that of $\Sigma_t$ times independent $\chi^2_{n-1-i}$, $i = 0..d-1$, hence (derived here)
#
# $$ \mathbb E \log \frac{\det \Sigma_{t+1}^{1/2d}}{\det \Sigma_t^{1/2d}}
#    = \frac1{2d} \sum_{i=0}^{d-1} \Big[ \psi\big(\tfrac{n-1-i}2\big) - \log\tfrac{n-1}2 \Big] . $$ (log-det-drift)

# %%
dims, steps = (1, 2, 5, 10), np.arange(0, 301, 25)
factors = {d: simulate_cov_factors(n, steps, n_chains // 4, d, seed=seed) for d in dims}
log_diagonal = {d: np.log(np.diagonal(f, axis1=2, axis2=3)) for d, f in factors.items()}
volume = {d: np.exp(log_diagonal[d].mean(axis=(1, 2))) for d in dims}
exact_volume = {d: np.exp(steps * log_std_drift(n, d)) for d in dims}

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-dimension", "caption": "The geometric mean of $(\\det \\Sigma_t)^{1/2d}$, a standard deviation averaged over directions, under fully synthetic retraining from $\\Sigma_0 = I$. Points: simulated chains; lines: the exact decay, {eq}`log-det-drift`."}, "image": {"alt": "Log-scale decay against retrainings for dimensions 1, 2, 5 and 10; the higher the dimension the steeper the line, points on lines."}}
figure = plots.decay_by_dimension(steps, volume, exact_volume)

# %% tags=["hide-input"]
mean_eigenvalue = "mean eigenvalue of $\\sqrt{\\Sigma_{300}}$ over chains (95 %)"
rows, bound = [], {"$\\alpha(n)^{300}$": f"{expected_std(n, 300):.3f}"}
for d in dims:
    eigenvalues = np.linalg.svd(factors[d][-1], compute_uv=False).mean(axis=1)
    rows.append({"$d$": d, mean_eigenvalue: interval(eigenvalues)} | bound)
glue("dimension-chains", n_chains // 4, display=False)
Markdown(pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True))

# %% [markdown]
# The table, over {glue:text}`dimension-chains` chains, shows {prf:ref}`paper-proposition-1` in $d$ dimensions: from $\Sigma_0 = I$
# the mean of $\sqrt{\Sigma_t}$ is a multiple of the identity. In one dimension it must agree with $\alpha(n)^t$; with
# more dimensions it falls faster.

# %% [markdown]
# ## A mix of real and synthetic data stays put
#
# Now the $n$ real data stay, and $\lfloor \lambda n \rfloor$ samples of the previous model join them at every retraining. The
# distribution is as easy: the real mean and sum of squares are fixed, the synthetic ones are drawn, and the two are pooled. An *arm*, here and
# in all chapters, is one scheme with its parameters, such as the mix at λ = 0.5, over all its chains or seeds.

# %%
arms = [("fully_synthetic", None, std)]
few = min(n_chains, 2000)
for lam in (0.1, 0.5, 1.0, 2.0):
    _, chains = simulate_std(n, n_generations, few, seed=seed, lam=lam)
    arms.append(("mix", lam, chains))

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-mix", "caption": "σ_t over chains, median and 5 to 95 %. Fully synthetic retraining collapses; with the real data in the mix σ_t fluctuates around the estimate from the real data, for every λ, with no trend."}, "image": {"alt": "Bands of the standard deviation against retrainings: the fully synthetic band falls to zero, the bands of lambda 0.1, 0.5, 1 and 2 stay around one."}}
figure = plots.std_bands(arms)

# %% tags=["hide-input"]
rows, median = [], f"median of $\\sigma_t$ at t = {n_generations}"
for scheme, lam, chains in arms:
    late, rng = chains[-1], np.random.default_rng(seed)
    how = {"n_resamples": 500, "method": "percentile", "rng": rng}
    found = stats.bootstrap((late,), np.median, **how)
    row = {"arm": arm_label(scheme, lam), median: f"{np.median(late):.4f}"}
    row["95 % interval"] = "{:.4f} to {:.4f}".format(*found.confidence_interval)
    rows.append(row | {"spread over chains": f"{late.std():.4f}"})
Markdown(pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True))

# %% [markdown]
# ## The same distribution from Algorithm 1 itself
#
# The chains above never drew a sample: they draw sufficient statistics from their exact distribution. The loop that trains the
# networks of later chapters, `retrain`, does draw them: it samples $n$ points, fits them, and goes on. Both must lead to one distribution.

# %%
n_loops, last = 200, 50
loop_std = np.empty(n_loops)
for chain in range(n_loops):
    start, chain_seed = (
        Gaussian(np.zeros(1), np.eye(1)),
        stage_seed(seed, chain, "loop"),
    )
    real = start.sample(n, seed=chain_seed)
    records = retrain(
        start,
        real,
        FullySynthetic(),
        [],
        n_retrain=last,
        seed=chain_seed,
        initial_state=start.state_dict(),
    )
    loop_std[chain] = [np.sqrt(start.cov[0, 0]) for _ in records][-1]
test = stats.ks_2samp(loop_std, std[last])

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-loop", "caption": "The distribution of σ_t after 50 retrainings: Algorithm 1 run on samples, and the exact distribution by sufficient statistics."}, "image": {"alt": "Two nearly identical empirical distribution functions of the standard deviation."}}
figure = plots.two_distributions(
    loop_std, std[last], ("Algorithm 1 on samples", "exact distribution"), "σ_50 / σ_0"
)

# %% tags=["hide-input"]
glue("ks-p", f"{test.pvalue:.2f}", display=False)
glue("loops", n_loops, display=False)

# %% [markdown]
# A Kolmogorov–Smirnov test of the {glue:text}`loops` runs of the loop against the exact distribution gives $p =$ {glue:text}`ks-p`.
#
# ## What the paper says, what we see
#
# *The paper says*: a Gaussian retrained solely on its own samples collapses, $\mathbb E \sqrt{\Sigma_t} \preceq \alpha^t \sqrt{\Sigma_0}$.
# *We see* exactly that, with the constant known in closed form, and two things beyond it: the typical chain collapses twice as
# fast as the mean, and the mean of $\sigma_t^2$ never moves. With real data in the mix, nothing collapses in this model for
# any λ that we tried, also beyond λ = 1.

# %% [markdown]
# ## Exercises
#
# The first takes a few minutes, its set-up apart: `papermill notebooks/01_gaussian_warmup.ipynb out.ipynb -p n 200 -p n_chains 2000`
# makes this page again with other parameters, and so does the notebook in Jupyter. Say what you expect before you look.
#
# :::{exercise} Twice as many data
# :label: ex-gaussian-n
# After how many retrainings has the mean of $\sigma_t$ halved, for $n = 100$ and for $n = 200$? Use $\alpha(n)$ of {prf:ref}`prop-three-rates`, then run
# the notebook with $n = 200$ and compare it with {numref}`fig-three-rates`.
# :::
#
# :::{solution-start} ex-gaussian-n
# :class: dropdown
# :::
# From $\alpha(n)^t = \frac12$ and $\log \alpha(n) \approx -\frac1{4n}$ it takes about $4 n \log 2$ retrainings: twice the data, twice the time.

# %% tags=["solution"]
halving = [
    {
        "n": k,
        "exact": np.log(0.5) / np.log(contraction(k)),
        "4 n log 2": 4 * k * np.log(2),
    }
    for k in (25, 50, 100, 200)
]
Markdown(pd.DataFrame(halving).to_markdown(index=False, floatfmt=("g", ".1f", ".1f")))

# %% [markdown]
# :::{solution-end}
# :::
#
# :::{exercise} Very few synthetic data
# :label: ex-gaussian-lam
# In {numref}`fig-mix` λ goes from 0.1 to 2. What do you expect of λ = 0.02, with two synthetic data beside a hundred real ones: does $\sigma_t$ still
# stay around the estimate from the real data? And is its spread over chains larger or smaller than that of this estimate?
# :::
#
# :::{solution-start} ex-gaussian-lam
# :class: dropdown
# :::
# It stays, and its spread is hardly larger: few synthetic data bring little noise ({doc}`03_finite_samples` has the exact excess).

# %% tags=["solution"]
_, few_synthetic = simulate_std(n, n_generations, few, seed=seed, lam=0.02)
first, last_ones = few_synthetic[0], few_synthetic[-1]
Markdown(
    f"After {n_generations} retrainings: median {np.median(last_ones):.3f}, spread over chains {last_ones.std():.4f}; "
    f"the estimate from the real data: median {np.median(first):.3f}, spread {first.std():.4f}."
)

# %% [markdown]
# :::{solution-end}
# :::
#
# :::{exercise} The other variance
# :label: ex-gaussian-ml
# Maximum likelihood divides by $n$ and not by $n - 1$. Which of the three rates of {prf:ref}`prop-three-rates` change, and does the mean square still stay where it is?
# :::
#
# :::{exercise} Dimensions
# :label: ex-gaussian-dimension
# Expand {eq}`log-det-drift` for large $n$. How does the rate at which the volume collapses grow with $d$, and how many data do you need in ten dimensions to be as
# slow as $n = 100$ in one?
# :::

# %% [markdown]
# :::{admonition} Three things learnt
# :class: tip
#
# 1. A Gaussian that learns from its own samples alone collapses, at rates that are known exactly, and the typical chain twice as fast as the mean.
# 2. The mean of $\sigma_t^2$ never moves: a mean over chains and a typical chain can tell opposite stories.
# 3. With the real data in the mix nothing collapses here, for any λ.
# :::
#
# *What this chapter does not show*: networks, whose errors are not those of drawing a sample alone. *Where to go next*: {doc}`02_fixed_point` for what infinitely many data do, {doc}`03_finite_samples` for what few of them add.
