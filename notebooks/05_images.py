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
# {cite}`bertrand2024stability` are, at a scale that fits a laptop: 8 × 8 digits instead of CIFAR-10 and FFHQ-64.

# %% tags=["parameters"]
run_dirs = []
scale = "by hand"

# %% tags=["hide-input"]
import numpy as np
from IPython.display import Markdown
from iterative_retraining.parameters import check_parameters
from iterative_retraining.runs.results import (
    find_results,
    of_dataset,
    read_floor,
    read_runs,
)
from iterative_retraining.status import stale_note
from iterative_retraining.studies import plots
from iterative_retraining.studies.report.chapters import (
    arm_previews,
    run_facts,
    scale_note,
)
from iterative_retraining.studies.report.comparisons import (
    arm_summary,
    arm_table,
    paired_table,
)
from myst_nb import glue

check_parameters(globals(), "run_dirs scale")
run_dirs = of_dataset(run_dirs or find_results(), "digits")
runs, floor = read_runs(run_dirs), read_floor(run_dirs[0])
by_model = {str(name): table for name, table in runs.groupby("model")}
Markdown("\n\n".join(filter(None, [scale_note(scale, run_dirs), stale_note(run_dirs)])))

# %% [markdown]
# ## What is run
#
# - **Data**: real digits that ship inside scikit-learn, grey, 8 × 8.
# - **Models**, all with a DDPM++ U-Net {cite}`song2021score` of 16 channels, written from the papers' equations: `edm`
#   {cite}`karras2022elucidating` and, where it was run, `flow_matching` {cite}`lipman2023flow,tong2024improving`, noise and data of a
#   batch paired by optimal transport.
# - **Retraining**: each starts from the weights (the EMA) of the one before, with a fresh Adam, for the same number of images
#   whatever the arm. θ₀ is trained once per seed and shared by all arms of that seed.
# - **Latents**: fresh for every generation. (The paper's code reuses the same ones; see {doc}`../setting`.)
# - **Metrics**: FID {cite}`heusel2017gans`, precision and recall {cite}`kynkaanniemi2019improved` ($k = 3$ neighbours besides the
#   point itself, strict inequality) between all real images and as many samples, on the 64 features of a small classifier
#   trained on the real digits. These numbers compare arms of this chapter; they are not FIDs of Inception features. Further
#   below: KID, density, coverage and authenticity. {doc}`metrics` defines them all and shows what each can miss.
# - **Floor**: the same metrics between two random halves of the real images, 20 times. Halves are half as large, and the bias
#   of FID goes as 1/n, so this floor lies somewhat above what two full real sets would show.
#
# These runs:

# %% tags=["hide-input"]
Markdown(run_facts(run_dirs))

# %% [markdown]
# ## FID, precision and recall

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-quality", "caption": "FID (lower is better), precision and recall (higher is better) against the number of retrainings, as in figure 2 of the paper. Lines: mean over seeds; bands: their range. Grey: real against real, mean and 2.5 to 97.5 % over random halvings."}, "image": {"alt": "Three panels of FID, precision and recall against retrainings; the dashed red fully synthetic curve leaves the others, the curves with real data stay level."}}
figure = plots.family_curves(by_model, floor, ["fid", "precision", "recall"])

# %% tags=["hide-input"]
main = ["fid", "precision", "recall"]
tables = (
    f"**{name}**\n\n{arm_table(one, floor, main)}" for name, one in by_model.items()
)
Markdown("\n\n".join(tables))

# %% [markdown]
# *How to read {numref}`fig-quality`.* The first point of every curve is θ₀, the same in all arms of a seed. λ = 0 is the
# control: it goes on training on real images alone. An arm is stable if it stays with the control, and diverges if it leaves
# it and keeps going.

# %% tags=["hide-input"]
sentence = (
    "- `{}`: after {retrainings} retrainings, over {seeds} seed(s), the FID of the fully synthetic arm has gone from "
    "{synthetic-first} to {synthetic-last}; the worst mean of any arm that keeps the real data is {mix-worst}, at "
    "λ = {mix-worst-lam}."
)
summaries = {name: arm_summary(one, floor) for name, one in by_model.items()}
for name, text in summaries.get("edm", arm_summary(runs, floor)).items():
    glue(name, text, display=False)
Markdown("\n".join(sentence.format(k, **s) for k, s in summaries.items()))

# %% [markdown]
# ## What the other metrics see

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-more-metrics", "caption": "KID (lower is better), density, coverage and authenticity against the number of retrainings; lines, bands and floor as in the figure before."}, "image": {"alt": "Four panels of KID, density, coverage and authenticity against retrainings, by arm, with the real-vs-real floor."}}
more = ["kid", "density", "coverage", "authenticity"]
figure = plots.family_curves(by_model, floor, more)

# %% tags=["hide-input"]
tables = (f"**{name}**\n\n{paired_table(one)}" for name, one in by_model.items())
Markdown("\n\n".join(tables))

# %% [markdown]
# In numbers for EDM: KID orders the arms as FID does. Density and coverage see the collapse as precision does: fully synthetic, coverage ends at
# {glue:text}`coverage-synthetic`, against {glue:text}`coverage-low` at λ = {glue:text}`lam-low` and {glue:text}`coverage-high` at
# λ = {glue:text}`lam-high`. Authenticity tells whether an arm does well by copying: it ends at
# {glue:text}`authenticity-low` at λ = {glue:text}`lam-low`, {glue:text}`authenticity-high` at λ = {glue:text}`lam-high` and
# {glue:text}`authenticity-synthetic` fully synthetic. Real images that were not trained on reach {glue:text}`authenticity-floor`.
# That alone does not show that an arm does not copy: {doc}`metrics` says what authenticity misses, and images that nobody would take for a
# digit are authentic too.
#
# ## Samples over retrainings

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-samples", "caption": "Samples against the number of retrainings, as in figure 1 of the paper, for the first seed. Every tile starts from the same latent in all panels, so a change is the model's."}, "image": {"alt": "Grids of generated digits by arm and number of retrainings: the fully synthetic row dissolves into unreadable shapes, the rows that keep real data stay readable."}}
shortest = runs.groupby("run_id").generation.max().min()
shown = [int(g) for g in np.linspace(0, shortest, 5)]
figure = plots.sample_grid(arm_previews(runs), shown)

# %% [markdown]
# ## What the paper says, what we see
#
# *The paper says* that, for all its models and data sets, only training on synthetic data alone diverges, that EDM on CIFAR-10
# is stable for λ from 0 to 1, and EDM on FFHQ-64 for λ below 0.5.
#
# *We see*, on digits, and in numbers for EDM (the tables have the other models): the fully synthetic arm diverges in FID and
# precision, and its samples dissolve: in the published runs those of EDM harden to black and white and break up, those of flow
# matching fade to grey. The arms that keep the real data do not diverge: their FID has no trend to speak of next to that of the
# fully synthetic arm. But stable is not unharmed: the more synthetic data, the lower the precision at the end,
# {glue:text}`precision-low` at λ = {glue:text}`lam-low` against {glue:text}`precision-high` at λ = {glue:text}`lam-high`, and the
# paired tests above tell these levels apart as far as the seeds allow. Recall does not show the collapse, it ends at
# {glue:text}`recall-synthetic`: it counts real images that lie near *some* sample, and samples that spread out cover more of
# them, however bad they are ({doc}`metrics`).
#
# What this chapter is *not*: CIFAR-10, FFHQ-64, or the published weights. {doc}`06_paper_scale` is about those, and about
# larger images than digits.
