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
# # When models learn from their own samples
#
# Generative models fill the web with images, and the next models are trained on the web. *Does this loop collapse?* Below, a model that draws
# digits is retrained again and again: above on nothing but its own samples, below on the real digits and as many samples. **Move the slider.**

# %% tags=["parameters"]
run_dirs = []
claims_file = ""
scale = "by hand"

# %% tags=["hide-input", "fold-at-end"]
from IPython.display import HTML, Markdown
from iterative_retraining.parameters import check_parameters
from iterative_retraining.runs.results import find_results, of_dataset, read_floor
from iterative_retraining.status import stale_note
from iterative_retraining.studies import plots
from iterative_retraining.studies.report.chapters import scale_note
from iterative_retraining.studies.report.claims import read_claims
from iterative_retraining.studies.report.evidence import read_evidence
from iterative_retraining.studies.report.front import (
    claim_groups,
    front_previews,
    front_runs,
    front_sentence,
)

check_parameters(globals(), "run_dirs claims_file scale")
results = find_results()[0].parent
runs = front_runs(of_dataset(run_dirs or find_results(), "digits"))
paths = list(dict.fromkeys(runs.path))
floor = read_floor(paths[0])
Markdown(scale_note(scale, paths))

# %% tags=["remove-input"]
previews = front_previews(runs)
frames = (
    (str(t), plots.preview_rows({label: strip[t] for label, strip in previews.items()}))
    for t in range(len(next(iter(previews.values()))))
)
alt = "Two blocks of sixteen generated digits, above fully synthetic, below with real data in the mix"
HTML(plots.frames_slider("frames-front", "retrainings", frames, alt))

# %% tags=["remove-input"]
Markdown("\n\n".join([front_sentence(runs, floor), stale_note(paths)]))

# %% tags=["hide-input"] mystnb={"figure": {"name": "fig-front", "caption": "FID (lower is better) and precision (higher is better) of the samples against the number of retrainings, for the runs above. Lines: mean over seeds; bands: their range. Grey: two sets of real digits against each other."}, "image": {"alt": "FID and precision against retrainings: the dashed red curve of fully synthetic retraining runs away from the grey band of real data, the curves that keep the real data stay together."}}
figure = plots.family_curves({"": runs}, floor, ["fid", "precision"])

# %% [markdown]
# *On the Stability of Iterative Retraining of Generative Models on their own Data* {cite}`bertrand2024stability` answers: it depends on the share
# of real data. This book runs that study on a laptop's scale, with seeds, intervals, floors and tests, and says plainly where it agrees, where it does
# not, and what was not run: {doc}`scope` lists figure by figure what is shown at what scale.
#
# ## Three doors
#
# ::::{grid} 1
# :gutter: 3
#
# :::{grid-item-card} Read
# Start with {doc}`chapters/01_gaussian_warmup`; nothing to install. Offline, two minutes and about 300 MB:
#
# ```bash
# make read
# ```
# :::
#
# :::{grid-item-card} Run one notebook
# Algorithm 1 on digits, minutes on a CPU, and resumed wherever it is killed:
#
# ```bash
# make setup
# source .venv/bin/activate
# papermill notebooks/retrain.ipynb out.ipynb -p lam 0.5 -p seed 3
# ```
# :::
#
# :::{grid-item-card} Sweep on a GPU
# Seeds and arms by a profile, one run a GPU ({doc}`reproduce`):
#
# ```bash
# snakemake sweep --cores all --resources gpu=4 --config profile=cpu device=cuda
# ```
# :::
# ::::
#
# ## What became of the claims
#
# Each claim of the paper and of this book has a contract in numbers; verdicts are computed from the published runs. {doc}`chapters/claims` has every
# claim with its reason.

# %% tags=["remove-input"]
claims = read_claims(claims_file or results.parent / "claims.yml")
Markdown(claim_groups(claims, read_evidence(results)))

# %% [markdown]
# ## Cite
#
# Cite the paper, and this package if you use its code or results (`CITATION.cff`).
#
# ```{literalinclude} references.bib
# :language: bibtex
# :lines: 1-8
# ```
