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
# # The fixed point, and how fast retraining returns to it
#
# *With infinitely many real and synthetic data, is retraining on a mix stable, and how strongly? Theorem 1 of the paper
# gives a condition and a rate. Here its constants are computed, for models where that can be done, and put beside the
# contraction that is observed.*

# %% tags=["parameters"]
lam_shown = 0.5
n_retrain = 20
n_flows = 5
scale = "by hand"

# %% tags=["hide-input"]
import pandas as pd
import torch
from IPython.display import Markdown
from iterative_retraining.parameters import check_parameters
from iterative_retraining.studies import plots
from iterative_retraining.studies.report.chapters import scale_note
from iterative_retraining.studies.theory import fixed_point as theory
from iterative_retraining.studies.theory.families import (
    GaussianFamily,
    LocationScale,
    Points,
    SharedVarianceMixture,
)
from iterative_retraining.studies.theory.flows import FlowFamily, points_of_plane
from iterative_retraining.studies.theory.penalised import (
    PenalisedRetraining,
    lipschitz_at_least,
)
from iterative_retraining.studies.toy2d.distributions import ARC
from iterative_retraining.studies.toy2d.transport import estimate_wasserstein1
from myst_nb import glue
from scipy import stats

check_parameters(globals(), "lam_shown n_retrain n_flows scale")
torch.set_default_dtype(torch.float64)
Markdown(scale_note(scale))

# %% [markdown]
# ## The statement
#
# Let $\theta^\star$ maximise $\mathbb E_{x \sim p_{\rm data}} \log p_\theta(x)$. A retraining with infinitely many data takes $\theta$ to
#
# $$ \mathcal G_\lambda^\infty(\theta) = \arg\max_{\theta'}\; \mathbb E_{x \sim p_{\rm data}} \log p_{\theta'}(x)
#    + \lambda\, \mathbb E_{\tilde x \sim p_\theta} \log p_{\theta'}(\tilde x) , $$ (retraining-infinite)
#
# a maximum near $\theta$. Write
#
# $$ A = \mathbb E_{x \sim p_{\rm data}} \nabla^2_\theta \log p_{\theta^\star}(x), \qquad
#    B = \mathbb E_{x \sim p_{\theta^\star}} \nabla^2_\theta \log p_{\theta^\star}(x) = -\,\text{Fisher information}. $$ (curvatures)
#
# *Assumption 1*: $x \mapsto \nabla^2_\theta \log p_\theta(x)$ is $L$-Lipschitz for $\theta$ near $\theta^\star$. *Assumption 2*: $A \preceq -\alpha I$,
# $\alpha > 0$. How well the first model can be is measured by $\varepsilon = W_1(p_{\theta^\star}, p_{\rm data})$.
#
# :::{prf:lemma} The Jacobian of a retraining
# :label: lem-jacobian
# $\theta^\star$ is a fixed point of {eq}`retraining-infinite` for every λ, and there the derivative of $\mathcal G_\lambda^\infty$ is
#
# $$ J = (I + \lambda A^{-1}B)^{-1} \lambda A^{-1} B . $$ (jacobian)
#
# If the model is well specified, $p_{\theta^\star} = p_{\rm data}$, then $J = \tfrac{\lambda}{1+\lambda} I$.
# :::
#
# :::{prf:proof}
# $\theta' = \mathcal G(\theta)$ solves $\mathbb E_{\rm data} \nabla \log p_{\theta'} + \lambda\, \mathbb E_{p_\theta} \nabla \log p_{\theta'} = 0$. At
# $\theta = \theta' = \theta^\star$ the first term is zero by the choice of $\theta^\star$, and the second always, since
# $\mathbb E_{p_\theta} \nabla_\theta \log p_\theta = 0$: so $\theta^\star$ is a fixed point. The derivative
# of the left side in $\theta'$ is $A + \lambda B$; in $\theta$ it is
# $\lambda \int \nabla \log p\, (\nabla p)^\top = \lambda\, \mathbb E_p [\nabla \log p \,\nabla \log p^\top] = -\lambda B$. By the implicit function theorem
# $J = (A + \lambda B)^{-1} \lambda B$, which is the formula. Well specified: $A = B$.
# :::
#
# :::{prf:theorem} Stability; the number is that of {cite}`bertrand2024stability`
# :label: paper-theorem-1
# If $\lambda (1 + L\varepsilon/\alpha) < 1/2$, then
#
# $$ \lVert J \rVert \le \rho(\lambda) = \frac{\lambda (\alpha + \varepsilon L)}{\alpha - \lambda (\alpha + \varepsilon L)} < 1 , $$ (rate-of-theorem-1)
#
# and $\lVert \theta_t - \theta^\star \rVert \le \rho(\lambda)^t \lVert \theta_0 - \theta^\star \rVert$ for $\theta_0$ near $\theta^\star$.
# :::
#
# :::{prf:proof}
# By Kantorovich's duality $\lVert A - B \rVert \le L\varepsilon$, so $\lVert A^{-1}B \rVert \le 1 + L\varepsilon/\alpha =: c$. With $\lambda c < 1$ the
# Neumann series gives $\lVert (I + \lambda A^{-1}B)^{-1} \rVert \le 1/(1 - \lambda c)$, and $\lVert J \rVert \le \lambda c / (1 - \lambda c) = \rho(\lambda)$, below one
# if $\lambda c < 1/2$.
# :::
#
# The proof treats $I + \lambda A^{-1}B$ as if the two terms could cancel. They cannot:
#
# :::{prf:proposition} The exact spectrum (derived here)
# :label: prop-spectrum
# The eigenvalues of $J$ are $\lambda m_i / (1 + \lambda m_i)$, with $m_i > 0$ those of $A^{-1} B$. So the spectral radius of $J$ is below
# one for *every* λ, and every $\theta_0$ near enough to $\theta^\star$ returns to it.
# :::
#
# :::{prf:proof}
# $-A$ and $-B$ of {eq}`curvatures` are symmetric and positive definite ($B$ where the Fisher information is regular). $A^{-1}B = (-A)^{-1}(-B)$ is
# similar to $(-A)^{-1/2}(-B)(-A)^{-1/2}$, which is positive definite: its eigenvalues $m_i$ are real and positive. $J$ is a
# function of $A^{-1}B$, so its eigenvalues are those of the function. A spectral radius below one makes the
# iteration converge locally, at that rate in the limit; the norm of $J$, and so the first steps, depend on the coordinates.
# :::
#
# So the $1/2$ is made by the bound {eq}`rate-of-theorem-1`, not by retraining. That is for infinitely many data, near $\theta^\star$, and for a maximum
# that is found exactly.
#
# ## Well specified: a Gaussian, in two systems of coordinates
#
# $\theta$ is $(\mu, \Sigma)$, or the natural parameters $(\Sigma^{-1}\mu, -\Sigma^{-1}/2)$. $\varepsilon = 0$, so Theorem 1 gives
# $\lambda/(1-\lambda)$ below $\lambda = 1/2$, and {cite:t}`ferbach2024self` (quoted second hand) give
# $\frac{\lambda(\alpha+\varepsilon L)}{\alpha + \lambda(\alpha - \varepsilon L)} = \frac{\lambda}{1+\lambda}$, which is exact.

# %% mystnb={"figure": {"name": "fig-rates-gaussian", "caption": "Contraction of the distance to θ* per retraining, for a Gaussian in two dimensions: Theorem 1 (which holds below λ = 1/2), the rate of Ferbach et al. and the exact one, which coincide, and what is observed at the end of twenty retrainings (or before the distance falls below 1e-8) from a start 0.001 away in every coordinate."}, "image": {"alt": "Two panels, natural parameters and mean and covariance: the dashed bound of Theorem 1 rises to one at lambda one half; the exact rate stays below one up to lambda ten, with the observed points on it."}}
panels = {}
for name in ("natural", "moments"):
    family = GaussianFamily(2, name)
    theta = family.pack([1.0, -0.5], [[1.0, 0.3], [0.3, 0.5]])
    data = family.points(theta)
    m = theory.ratios(*theory.curvatures(family, theta, data=data))
    known = theory.Constants(theta, m, alpha=1.0, lipschitz=0.0, eps=0.0)
    title = "natural parameters" if name == "natural" else "(μ, Σ)"
    panels[title] = theory.rate_curves(family, known, data=data)
figure = plots.rate_panels(panels)

# %% [markdown]
# Stability does not end at $\lambda = 1/2$, nor at 10: retraining returns to $\theta^\star$ ever more slowly, and stays exactly
# where it is, $J = I$, only in the limit λ → ∞, which is fully synthetic retraining.
#
# ## Misspecified: the constants of Theorem 1, measured
#
# :::{prf:proposition} Exponential families do not feel misspecification (derived here)
# :label: prop-exponential
# For an exponential family and *any* distribution of the data, $A = B$ in natural parameters. So $m_i = 1$ and $J = \tfrac{\lambda}{1+\lambda} I$, in
# all coordinates.
# :::
#
# :::{prf:proof}
# $\log p_\eta(x) = \eta \cdot T(x) - \psi(\eta) + \log h(x)$ has the Hessian $-\nabla^2 \psi(\eta)$ whatever $x$. Other coordinates $\phi(\eta)$ make $J$
# similar, $D\phi\, J\, D\phi^{-1}$, and a multiple of the identity stays what it is.
# :::
#
# So a Gaussian fitted to anything contracts by exactly $\lambda/(1+\lambda)$. To see misspecification at work one needs other
# families: location and scale of a logistic or Student distribution, or a mixture that cannot have the right shape. Three
# distributions they cannot represent:

# %%
targets = {
    "skewed": Points.of_density(stats.skewnorm(6).pdf, centre=0.5),
    "two bumps": Points.of_mixture([0.7, 0.3], [-2, 2], [0.7, 0.5]),
    "three bumps": Points.of_mixture([1 / 3] * 3, [-2, 0.5, 3], [0.4, 0.6, 0.5]),
}

# %%
one, two = torch.tensor([0.5, 0.0]), torch.tensor([-1.0, 1.0, 0.0])
student, mixture = LocationScale("student", 3.0), SharedVarianceMixture(2)
cases = {
    ("Gaussian", "two bumps"): (LocationScale("normal"), one),
    ("logistic", "skewed"): (LocationScale("logistic"), one),
    ("Student, 3 degrees", "skewed"): (student, one),
    ("logistic", "two bumps"): (LocationScale("logistic"), one),
    ("Student, 3 degrees", "two bumps"): (student, one),
    ("two Gaussians, one variance", "two bumps"): (mixture, two),
    ("two Gaussians, one variance", "three bumps"): (mixture, two),
}

# %%
found = {
    (name, real): theory.constants(family, start, (-10.0, 10.0), data=targets[real])
    for (name, real), (family, start) in cases.items()
}
rows = [
    {"family": name, "real distribution": real}
    | found[name, real].row(family, lam_shown, data=targets[real])
    for (name, real), (family, _) in cases.items()
]
pd.DataFrame(rows).set_index(["family", "real distribution"]).round(3)

# %% tags=["hide-input"]
glue("largest-lam", f"{max(c.largest_lam for c in found.values()):.2f}", display=False)
glue("smallest-lam", f"{min(c.largest_lam for c in found.values()):.4f}", display=False)
glue("largest-m", f"{max(c.ratios.max() for c in found.values()):.2f}", display=False)
glue("smallest-m", f"{min(c.ratios.min() for c in found.values()):.2f}", display=False)

# %% [markdown]
# *How to read it.* $L$ is the largest norm of $\partial_x \nabla^2_\theta \log p_{\theta^\star}$ for $x$ between −10 and 10 (a grid of 4 001 points, and
# half a step of its steepest rise on top). For the logistic and Student families that is the supremum over the whole line,
# since the norm falls further out; for Gaussians and mixtures in these coordinates it grows with $|x|$, and Assumption 1 holds on
# no unbounded set: the value is that of the ball. $\varepsilon$ is the exact $W_1$ of the two distributions.
#
# The constants are large against $\alpha$, so Theorem 1 applies below some λ between {glue:text}`smallest-lam` and
# {glue:text}`largest-lam`. What governs retraining is $m_i$, between {glue:text}`smallest-m` and {glue:text}`largest-m` in spite of crude
# misspecification, so that the true rate stays close to $\lambda/(1+\lambda)$, and the observed one agrees with it.

# %% mystnb={"figure": {"name": "fig-rates-misspecified", "caption": "Rates against λ for three misspecified models: the bounds, where they are below one, the exact rate, and what is observed."}, "image": {"alt": "Three panels: the bounds of Theorem 1 and of Ferbach et al. reach one at small lambda, the exact rate stays below one for all lambda and the observed points lie on it."}}
shown = [("logistic", "skewed"), ("Student, 3 degrees", "two bumps")]
shown += [("two Gaussians, one variance", "three bumps")]
panels = {
    f"{name}\n{real}": theory.rate_curves(
        cases[name, real][0], found[name, real], data=targets[real]
    )
    for name, real in shown
}
figure = plots.rate_panels(panels)

# %% [markdown]
# ## Where the distance first grows
#
# The spectral radius does not depend on coordinates, the norm does. Take the Student family on the two bumps, and
# instead of $(\mu, s)$, $\sigma = e^s$, the coordinates $(\mu + 20 s, s)$. The model and its retraining are the same.

# %%
c, data = found["Student, 3 degrees", "two bumps"], targets["two bumps"]
change = torch.tensor([[1.0, 20.0], [0.0, 1.0]])
j = theory.jacobian(student, c.theta, lam_shown, data=data)
skewed = change @ j @ torch.linalg.inv(change)
worst = torch.linalg.inv(change) @ torch.linalg.svd(skewed).Vh[0]
start = c.theta + 0.005 * worst

# %% mystnb={"figure": {"name": "fig-norm-grows", "caption": "Distance to the fixed point of one and the same run in two systems of coordinates. In the second it first grows, although the spectral radius of J is below one; in the end both fall at the same rate."}, "image": {"alt": "Two curves on a log scale: one falls from the start, the other rises at the first retraining and then falls in parallel."}}
path = theory.retrain_exactly(student, start, lam_shown, n_retrain, data=data)
gaps = {"(μ, s)": path - c.theta, "(μ + 20 s, s)": (path - c.theta) @ change.T}
lengths = {name: gap.norm(dim=1).numpy() for name, gap in gaps.items()}
figure = plots.distances_over_time(
    lengths, theory.rate_exact(c.ratios, lam_shown).max()
)

# %% tags=["hide-input"]
Markdown(
    f"At λ = {lam_shown:g}: ‖J‖ = {torch.linalg.matrix_norm(j, ord=2):.2f} in the first system and "
    f"{torch.linalg.matrix_norm(skewed, ord=2):.2f} in the second; spectral radius "
    f"{theory.rate_exact(c.ratios, lam_shown).max():.3f} in both."
)

# %% [markdown]
# ## A network: a normalizing flow in the plane
#
# Where the distance to $\theta^\star$ is measured in what the model *says*, and not in its parameters, it never grows:
#
# :::{prf:proposition} In Fisher's norm retraining only contracts (derived here)
# :label: prop-fisher-norm
# Let $F = -B$ be the Fisher information and $\lVert v \rVert_F^2 = v^\top F v$, which is the mean square of the change of $\log p_\theta$, and to
# leading order $2\, \mathrm{KL}$, when $\theta^\star$ is moved by $v$. Then $J$ is self-adjoint in this norm, and
# $\lVert J v \rVert_F \le \max_i \frac{\lambda m_i}{1 + \lambda m_i} \lVert v \rVert_F$ for all $v$ and λ.
# :::
#
# :::{prf:proof}
# With $H = -A$: $J = (H + \lambda F)^{-1} \lambda F$, so $u^\top F J v = \lambda\, (Fu)^\top (H + \lambda F)^{-1} (F v)$, which is symmetric in $u$ and $v$.
# The norm of a self-adjoint operator is its spectral radius.
# :::
#
# The model is a masked autoregressive flow {cite}`papamakarios2017masked` with two transforms and tanh networks, trained on five
# Gaussians along an arc. Its log-likelihood has flat directions, so the maximum is no point; a penalty
# $\tfrac{0.01}{2} \lVert \theta \rVert^2$ on the weights, on the side of the real data, makes it one. Then $\theta^\star$ remains a fixed point, $A$ becomes
# $A - 0.01\, I$, and everything above holds with it ($m_i$ is 0 where the flow feels nothing but the penalty). Expectations
# are quadratures on grids, so the data are infinitely many here too; the curvatures are Hessian-vector products by automatic
# differentiation, one for each weight; every retraining runs Newton's method with conjugate gradients until the gradient is below $10^{-6}$.

# %%
flow, plane = FlowFamily(), points_of_plane(ARC.density, -5.5, 5.5, 0.25)
network = PenalisedRetraining(flow, plane, decay=0.01)
theta = network.fixed_point(flow.start)
a, b = network.curvatures(theta)
m, alpha = theory.ratios(a, b), theory.strong_concavity(a)
samples = flow.sample(theta, 16000, seed=1).numpy(), ARC.sample(16000, seed=2)
eps = estimate_wasserstein1(*samples)
least_L = lipschitz_at_least(flow, theta, plane.x[plane.x.norm(dim=1) < 4][::5])

# %% tags=["hide-input"]
kl = plane.mean(ARC.log_density(plane.x) - flow.log_prob(theta, plane.x))
Markdown(
    f"{len(theta)} weights; KL(data, model) = {kl:.3f}; ε = W₁ ≈ {eps.value:.3f}, between {eps.low:.2f} and {eps.high:.3f} "
    f"(exact transport of samples, bias corrected); α = {alpha:.4f}; L at least {least_L:.0f} for |x| < 4; "
    f"so, with these, Theorem 1 says nothing above λ = {0.5 / (1 + least_L * eps.value / alpha):.0e}. "
    f"Largest mᵢ: {m.max():.2f}; the median of those above 0.01: {pd.Series(m[m > 0.01]).median():.2f}."
)

# %% mystnb={"figure": {"name": "fig-network", "caption": "Distance of a flow's outputs from those at the fixed point, the root mean square of the difference of log-densities, after every retraining: points observed, lines by the Jacobian, one for each random start; dotted: λ/(1+λ) per retraining."}, "image": {"alt": "Straight falling lines on a log scale, steep for lambda one half and flat for lambda two, with the observed points on them."}}
paths = {
    f"λ = {lam:g}": network.paths(theta, lam, 7, seeds=range(n_flows))
    for lam in (lam_shown, 2.0)
}
figure = plots.output_distances(
    paths, {"λ = 2": 2 / 3, f"λ = {lam_shown:g}": lam_shown / (1 + lam_shown)}
)

# %% tags=["hide-input"]
rows = [
    {"": name, "observed contraction per retraining": theory.mean_rate(observed)}
    | {"by the Jacobian": theory.mean_rate(linear)}
    for name, (observed, linear) in paths.items()
]
pd.DataFrame(rows).set_index("")

# %% [markdown]
# *How to read it.* Means over random starts, ± 95 % (t-distribution), of the geometric mean contraction over all retrainings. Most directions that matter to
# the output have $m_i$ near 1, so the outputs contract by little more than $\lambda/(1+\lambda)$; the largest $m_i$ belongs to directions
# that a random start hardly excites, and only in the long run would its rate show. What the Jacobian at $\theta^\star$ predicts is what happens. The
# constants of Theorem 1 are hopeless for even so small a network, since $\alpha$ is the curvature of its flattest direction.
#
# ## What the paper says, what we see
#
# *The paper says* that retraining is locally stable if the first model is good enough and λ is small: $\lambda(1 + L\varepsilon/\alpha) < 1/2$.
#
# *We see* that the condition is sufficient and far from necessary. In the setting of Theorem 1, with infinitely many data and
# a smooth family, the fixed point attracts for *every* λ, at the rate $\max_i \lambda m_i/(1+\lambda m_i)$ ({prf:ref}`prop-spectrum`); the bound
# of {cite:t}`ferbach2024self` comes nearer and is exact where $\varepsilon L = 0$. In the norm of its outputs a model never even moves away at
# first ({prf:ref}`prop-fisher-norm`), and a small network does what its Jacobian says. What the theorem cannot see, and this chapter
# does not show, is the error of finite samples and of training that is not carried to the maximum: the next chapter. Nor was $J$ measured
# for a diffusion model, whose samples do not come from the density that its loss fits.

# %% [markdown]
# ## Exercises
#
# :::{exercise} Four synthetic data for each real one
# :label: ex-fixed-lam
# For the Student family on the two bumps, what contraction do you expect at λ = 4, where Theorem 1 has long ceased to apply? Take $\lambda/(1+\lambda)$ for a first guess,
# and the $m_i$ for a better one; then retrain and look at the last step.
# :::
#
# :::{solution-start} ex-fixed-lam
# :class: dropdown
# :::
# Below one, as for every λ: the largest $m_i$ decides.

# %% tags=["solution"]
far = theory.retrain_exactly(student, start, 4.0, n_retrain, data=data) - c.theta
steps = far.norm(dim=1).numpy()
Markdown(
    f"λ/(1+λ) = 0.8; by the largest eigenvalue {theory.rate_exact(c.ratios, 4.0).max():.4f}; "
    f"observed at the last retraining {steps[-1] / steps[-2]:.4f}."
)

# %% [markdown]
# :::{solution-end}
# :::
#
# :::{exercise} Coordinates
# :label: ex-fixed-coordinates
# In {numref}`fig-norm-grows` the coordinates $(\mu + 20 s, s)$ make the distance grow at first. Does it grow in $(\mu + 2 s, s)$ as well? What decides?
# :::
#
# :::{solution-start} ex-fixed-coordinates
# :class: dropdown
# :::
# It can grow where $\lVert J \rVert > 1$ in those coordinates; the spectral radius is the same in all of them.

# %% tags=["solution"]
norms = {}
for k in (0.0, 2.0, 5.0, 20.0):
    change = torch.tensor([[1.0, k], [0.0, 1.0]])
    turned = change @ j @ torch.linalg.inv(change)
    norms[f"(μ + {k:g} s, s)"] = torch.linalg.matrix_norm(turned, ord=2).item()
table = pd.DataFrame({"coordinates": list(norms), "‖J‖": list(norms.values())})
Markdown(table.to_markdown(index=False, floatfmt=".3f"))

# %% [markdown]
# :::{solution-end}
# :::
#
# :::{exercise} How long does a gap last?
# :label: ex-fixed-time
# A well-specified model is started away from $\theta^\star$. After how many retrainings is a hundredth of the gap left, at λ = 0.1, 1 and 10? Which of the three would a study
# of ten retrainings call stable?
# :::
#
# :::{exercise} Eigenvalues without a square root
# :label: ex-fixed-linear
# Show that {eq}`jacobian` has all its eigenvalues in $(0, 1)$ if $A$ and $B$ are negative definite, without {prf:ref}`prop-spectrum`: write $J v = \rho v$ as a generalised eigenvalue problem of
# $-A$ and $-B$ and take the inner product with $v$.
# :::

# %% [markdown]
# :::{admonition} Three things learnt
# :class: tip
#
# 1. The best model is a fixed point for every λ, and its stability is a question of the eigenvalues $m_i$ of $A^{-1}B$.
# 2. Theorem 1's condition is sufficient and far from necessary.
# 3. A small network contracts as its Jacobian says, close to $\lambda/(1+\lambda)$ in its outputs.
# :::
#
# *What this chapter does not show*: finite data, unfinished training, and diffusion models. *Where to go next*: {doc}`03_finite_samples` for the errors of finite data, {doc}`04_toy_densities` for networks.
