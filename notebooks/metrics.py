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
# # What the metrics say, and where they lie
#
# *Every conclusion about images rests on numbers between two sets of features, some of them from a generator that is
# collapsing. How are they computed, what does each of them see, and by what is each of them deceived?* Here generators
# are imitated by real digits that were spoiled on purpose, so that the right answer is known.

# %% tags=["parameters"]
seed = 0
n_splits = 20
scale = "by hand"

# %% tags=["hide-input"]
import numpy as np
import pandas as pd
from IPython.display import Markdown
from iterative_retraining.datasets import load_dataset
from iterative_retraining.metrics import FeatureMetrics, direction_of
from iterative_retraining.metrics.features import build_features
from iterative_retraining.metrics.fid import fid_infinity
from iterative_retraining.metrics.kid import KID
from iterative_retraining.metrics.pairs import nearest_others
from iterative_retraining.metrics.precision_recall import PrecisionRecall
from iterative_retraining.metrics.uncertainty import jackknife
from iterative_retraining.parameters import check_parameters
from iterative_retraining.seeding import generator
from iterative_retraining.studies import plots
from iterative_retraining.studies.report.cases import (
    collapse_cases,
    measure_cases,
    noise_cases,
    verdicts,
)
from iterative_retraining.studies.report.chapters import scale_note
from myst_nb import glue
from scipy.spatial.distance import cdist

check_parameters(globals(), "seed n_splits scale")
Markdown(scale_note(scale))

# %% [markdown]
# ## What they are
#
# Images enter as `uint8` arrays (N, H, W, C) and leave a *feature space* as `float32` arrays (N, D). Four kinds of space are
# there: the penultimate layer of a small classifier (digits, Fashion-MNIST; committed with the package), Inception as
# pytorch-fid has it (`inception-legacy_pytorch`, which the authors' metric used), Inception with the resizing of
# {cite:t}`parmar2022aliased` (`inception-clean`), and DINOv2. The last three need weights that you bring; nothing in this book
# was measured with them. Let $x_1..x_N$ be generated and $y_1..y_M$ real features, with means $m_x, m_y$ and covariances
# $\Sigma_x, \Sigma_y$, and $\delta_k(\cdot)$ the distance of a point to the $k$-th nearest *other* point of its set.
#
# | metric | definition | better | source |
# |---|---|---|---|
# | FID | $\lVert m_x - m_y\rVert^2 + \operatorname{tr}\big(\Sigma_x + \Sigma_y - 2(\Sigma_x\Sigma_y)^{1/2}\big)$ | low | {cite:t}`heusel2017gans` |
# | FID∞ | intercept of FID against $1/N$ | low | {cite:t}`chong2020effectively` |
# | KID | unbiased squared MMD, kernel $(x \cdot y / D + 1)^3$, over all pairs | low | {cite:t}`binkowski2018demystifying` |
# | precision, recall | share of $x$ with $\lVert x - y_j\rVert < \delta_3(y_j)$ for some $j$; the same with roles exchanged | high | {cite:t}`kynkaanniemi2019improved` |
# | density | mean over $x$ of $\tfrac15 \#\{j : \lVert x - y_j\rVert < \delta_5(y_j)\}$ | high | {cite:t}`naeem2020reliable` |
# | coverage | share of $y_j$ with $\lVert x_i - y_j\rVert < \delta_5(y_j)$ for some $i$ | high | {cite:t}`naeem2020reliable` |
# | authenticity | share of $x$ farther from the nearest $y_j$ than $\delta_1(y_j)$ | high | {cite:t}`alaa2022faithful` |
# | copied | share of $x$ nearer to the nearest $y$ than a third of the distance to the second nearest | low | {cite:t}`yoon2023diffusion`, there in pixels |
# | class entropy | entropy of the histogram of predicted classes | high | |
# | FLD | negative log-likelihood of *held-out* data under Gaussians on the generated points, widths fitted to the training data, less a baseline | low | {cite:t}`jiralerspong2023feature` |
#
# Two choices decide what these numbers do in a collapse. *Ties*: the inequality is strict, a point on the edge of a ball is
# outside; points nearer to each other than $10^{-6}$ of their distance from the centre count as one point. *Rank*: the
# matrix root in FID is never taken.
#
# :::{prf:proposition} FID without a matrix root (derived here)
# :label: prop-fid-factors
# Let $\Sigma_x = FF^\top$ and $\Sigma_y = GG^\top$ with $F, G$ of full column rank, any rank. Then
# $\operatorname{tr} (\Sigma_x\Sigma_y)^{1/2}$ is the sum of the singular values of $F^\top G$.
# :::
#
# :::{prf:proof}
# The trace is the sum of the square roots of the eigenvalues of $FF^\top GG^\top$. $AB$ and $BA$ have the same non-zero
# eigenvalues, so they are those of $F^\top G\,(F^\top G)^\top$, which are the squared singular values of $F^\top G$.
# :::
#
# Pivoted Cholesky factors have as many columns as the covariance has rank, so a collapsed set, or one with fewer images than
# dimensions, costs less instead of giving complex numbers; the rank is reported beside the distance. All distances are
# computed in double precision, in tiles, so the memory needed does not grow with the number of images.
#
# ## Eight ways to fail, ten metrics
#
# The digits are split at random into a training set, a held-out set (which FLD alone uses) and a rest, of which the cases
# are made; then everything is measured against the training set, and all of it again for the next split.

# %% mystnb={"figure": {"name": "fig-cases", "caption": "The cases: real digits, and generators imitated by spoiling them."}, "image": {"alt": "Nine rows of sixteen digits each: real, shifted by a pixel, lower classes only, blended with the class mean, noisy, copies, near copies, one image repeated, few samples."}}
images, labels = load_dataset("digits")
order = generator(seed).permutation(len(images))
rest, train = order[: len(order) // 3], order[len(order) // 3 :]
cases = collapse_cases(images[rest], labels[rest], images[train], seed=seed)
figure = plots.image_rows(cases)

# %% mystnb={"figure": {"name": "fig-verdicts", "caption": "What each metric says of each case: the mean over the splits as a number; as a colour, how far it lies from the value of fresh real images, in their standard deviations over the splits. Red: reads as worse; blue: as better; white: not noticed. n is a third of the digits, but for the last row."}, "image": {"alt": "A coloured table of nine cases by ten metrics. Copies are blue for all metrics but authenticity, copied and FLD; one repeated image is blue for precision and density; noise is blue for recall."}}
features = build_features("auto", "digits")
rows = measure_cases(
    images, labels, features, collapse_cases, seed=seed, n_splits=n_splits
)
shown = (
    "fid kid precision recall density coverage authenticity class_entropy copied fld"
)
better = {name: direction_of(name) for name in shown.split()}
names, values, scores = verdicts(rows, better)
figure = plots.verdict_map(names, list(better), values, scores)

# %% tags=["hide-input"]
table = pd.DataFrame(rows).groupby("case")[list(better)].mean()
quoted = {
    "copies-fid": table.fid["near copies"],
    "real-fid": table.fid["real"],
    "one-precision": table.precision["one image"],
    "one-density": table.density["one image"],
    "noise-recall": table.recall["noise"],
    "noise-precision": table.precision["noise"],
    "shrunken-precision": table.precision["shrunken"],
    "shrunken-recall": table.recall["shrunken"],
    "few-fid": table.fid["few samples"],
    "few-kid": table.kid["few samples"],
}
for name, value in quoted.items():
    glue(name, f"{value:.2f}", display=False)

# %% [markdown]
# *How to read {numref}`fig-verdicts`.* Every failure hides from some metric, and every metric is deceived by some failure.
#
# - **Copies** deceive all metrics that compare with the training set alone. The FID of near copies is {glue:text}`copies-fid`,
#   far *below* the {glue:text}`real-fid` of fresh real images, and precision, recall and coverage are perfect. Authenticity, the
#   copied share and FLD, whose value has no upper bound here, find them.
# - **One image** repeated has a precision of 1 in most splits and of 0 in the others, {glue:text}`one-precision` on average, and a
#   density of {glue:text}`one-density`: all points lie inside the real data, or none does. Recall and coverage see it.
# - **Noise** has recall {glue:text}`noise-recall`, *above* that of real images, with precision {glue:text}`noise-precision`. Points that
#   scatter have large balls, and large balls cover the real data. So recall says nothing about a model that degrades.
# - **Shrunken** variance, the failure that the Gaussian theory predicts, raises precision to {glue:text}`shrunken-precision`
#   while recall falls to {glue:text}`shrunken-recall`.
# - **Few samples** of perfect quality have an FID of {glue:text}`few-fid`: that is bias. KID stays at {glue:text}`few-kid`. Coverage
#   depends on $n$ as well.
#
# Authenticity and the copied share measure novelty alone: noise is authentic. FLD of real images lies a little *below*
# zero here, since its baseline has only half of the training images for centres.
#
# Hence the rule of this book: never one metric alone, and every metric with its floor at the same $n$.
#
# ## Recall stays high while quality falls
#
# More and more noise on fresh real images:

# %% mystnb={"figure": {"name": "fig-noise", "caption": "Metrics against the strength of the noise: mean and 2.5 to 97.5 % over splits; dotted: without noise. Recall rises while the images are destroyed."}, "image": {"alt": "Six panels: FID and FLD grow with noise, precision, density and coverage fall, recall rises to one."}}
few_splits = max(3, n_splits // 4)
noisy = measure_cases(
    images, labels, features, noise_cases, seed=seed, n_splits=few_splits
)
figure = plots.metrics_against(
    pd.DataFrame(noisy),
    "case",
    ["fid", "precision", "recall", "density", "coverage", "fld"],
    "noise (grey levels)",
)

# %% [markdown]
# ## FID is biased in n, KID is not
#
# Two Gaussians in 64 dimensions, of standard deviations 1.05 and 1: the exact values are
# $64 \cdot 0.05^2$ for FID and $\tfrac{3}{64} (1.05^2 - 1)^2$ for KID, by
# $\mathbb E (x \cdot y/D + 1)^3 = 1 + 3\,\mathbb E (x\cdot y)^2 / D^2$ for independent, symmetric $x, y$. FID
# of a *perfect* model falls as $1/N$ when more images are drawn; its limit is estimated by the intercept of a line.

# %% mystnb={"figure": {"name": "fig-bias", "caption": "FID of subsets of N generated points, and KID of independent draws of N points (mean and 95 % t-interval over 10), against 1/N; line: least squares, for FID its intercept is FID∞; dashed: exact value."}, "image": {"alt": "Left, FID rises linearly in 1/N from the exact value; right, KID stays at the exact value without a trend."}}
rng = generator(seed)
wide, real = 1.05 * rng.normal(size=(4000, 64)), rng.normal(size=(50_000, 64))
limit = fid_infinity(wide, real=real, seed=seed)
sizes, fids = np.array(limit.about["sizes"]), np.array(limit.about["fids"])


def draw(n):
    x, y = 1.05 * rng.normal(size=(n, 64)), rng.normal(size=(n, 64))
    return KID()(x, real=y)["kid"]


kids = np.array([[draw(n) for _ in range(10)] for n in sizes])
truth = {"FID": 64 * 0.05**2, "KID": 3 * (1.05**2 - 1) ** 2 / 64}
figure = plots.bias_in_n(sizes, {"FID": fids[:, None], "KID": kids}, truth)

# %% tags=["hide-input"]
few, all_points = fids[0], fids[-1]
Markdown(
    f"FID at N = {sizes[0]}: {few:.2f}; at N = {sizes[-1]}: {all_points:.2f}; "
    f"FID∞ = {limit['fid_infinity']:.2f}; exact: {truth['FID']:.2f}."
)

# %% [markdown]
# ## Ties: precision and recall of a generator that repeats itself
#
# Here the generator gives each of a third of the real images three times. With the strict inequality the balls
# around its points have radius zero and hold nothing; with "at most" they hold the images that they are copies of.

# %%
real = features(images[order[:600]])
repeated = np.repeat(real[:200], 3, axis=0)
strict = PrecisionRecall(k=2)(repeated, real=real)
radii = np.sqrt(nearest_others(repeated, 2)[:, -1])
at_most = cdist(real, repeated) <= radii + 1e-9
recalls = {"<": strict["recall"], "≤": at_most.any(axis=1).mean()}
Markdown("; ".join(f"recall with {sign}: {r:.2f}" for sign, r in recalls.items()))

# %% [markdown]
# Neither is wrong, but they are different metrics where a generator repeats itself, as one that collapses does. This package
# takes the strict one, as the authors' metric does, and says so in every result (`about["tie_rule"]`).
#
# ## Intervals
#
# One value of a metric, from one set of generated images, has an error: a jackknife over 20 groups of the generated
# images gives it, and estimates the bias too. Here: fresh real digits against the others. FID is biased upwards and coverage
# downwards when images are few.

# %%
against = FeatureMetrics(features(images[train]))
fresh = features(images[rest])
estimates = jackknife(lambda x, real: against(x), fresh, real=fresh)
table = pd.DataFrame({name: e._asdict() for name, e in estimates.items()}).T
shown = ["fid", "kid", "precision", "recall", "density", "coverage"]
table.loc[shown, ["value", "standard_error", "bias"]].round(3)

# %% [markdown]
# Those errors are of one draw of images from one model. Conclusions on *retraining* need more: other seeds, which
# change the training too. So the chapters show intervals over seeds, test each λ against λ = 0 *of the same seed* (which
# shares $\theta_0$), and draw the floor: the same metric between halves of the real data.
#
# ## What the paper says, what we see
#
# *The paper* reports FID, precision and recall, without intervals. By the authors' code they are computed against the training
# set, on 2 048 Inception features, with $k = 3$ and the strict inequality.
#
# *We see* that these three are blind to copies of the training set, so a λ = 0 run that memorises would look like the best of
# all; that recall rises where quality falls; and that FID can be compared only at equal $n$. All metrics of the table are in
# the ledger of every run of this package; FLD where the data set has held-out images, as digits and Fashion-MNIST have.

# %% [markdown]
# ## Exercises
#
# :::{exercise} Half of it noise
# :label: ex-metrics-half
# A generator draws a fresh real digit or pure noise, each half of the time. Predict its precision, recall, coverage and FID before you look: which of them halve, and which hardly notice?
# :::
#
# :::{solution-start} ex-metrics-half
# :class: dropdown
# :::
# Precision halves, since no noise lies near a real image; recall does not, since the real half still covers the real data, and the balls around the noise are large.

# %% tags=["solution"]
noise = generator(seed).integers(0, 256, images[rest].shape).astype(images.dtype)
half = np.concatenate([images[rest][::2], noise[1::2]])
answers = {"real": against(fresh), "half of it noise": against(features(half))}
asked = ["precision", "recall", "coverage", "fid"]
Markdown(pd.DataFrame(answers).T[asked].to_markdown(floatfmt=".3f"))

# %% [markdown]
# :::{solution-end}
# :::
#
# :::{exercise} Larger balls
# :label: ex-metrics-k
# What do $k = 1$ and $k = 10$ neighbours make of the precision and the recall of fresh real images, where $k = 3$ is usual? Which $k$ would you choose to see a generator that blurs a little?
# :::
#
# :::{solution-start} ex-metrics-k
# :class: dropdown
# :::
# Both rise with $k$, as balls grow. Where everything lies inside, nothing can be seen: a small $k$ is the more sensitive, and the noisier.

# %% tags=["solution"]
train_features = features(images[train])
by_k = {k: dict(PrecisionRecall(k=k)(fresh, real=train_features)) for k in (1, 3, 10)}
table = pd.DataFrame(by_k).T.rename_axis("k").reset_index()
Markdown(table.to_markdown(index=False, floatfmt=("g", ".3f", ".3f")))

# %% [markdown]
# :::{solution-end}
# :::
#
# :::{exercise} One class lost
# :label: ex-metrics-class
# A generator never draws the digit 8. Which of the ten metrics of {numref}`fig-verdicts` see it, and by how much should recall fall? Change `collapse_cases`, or make the features by hand as above.
# :::
#
# :::{exercise} The rank of a collapsed set
# :label: ex-metrics-rank
# By {prf:ref}`prop-fid-factors`, what is the FID between real data and one image that is repeated? Which of its two parts remain, and can any number of repetitions change it?
# :::

# %% [markdown]
# :::{admonition} Three things learnt
# :class: tip
#
# 1. Every metric is blind to something: FID, precision and recall to copies, recall to bad samples that spread out.
# 2. A value means something beside its floor, at the same n and in the same features.
# 3. Intervals over images and over seeds are two things, and statements on retraining need seeds.
# :::
#
# *What this chapter does not show*: features of Inception or DINOv2, which see other things. *Where to go next*: {doc}`05_images`, where these metrics are used.
