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
# # Claims and what became of them
#
# *What does the paper claim, what does this book claim, and which of it holds in what was run here?* Each claim has a contract: what counts for it, what
# against, and what leaves it undecided, in numbers. Contracts are written before the runs that judge them, and a test compares the time of the commit
# with the start of every run. Verdicts are computed from the runs in `results/`; nobody types them.

# %% tags=["parameters"]
claims_file = ""
results = ""
scale = "by hand"

# %% tags=["hide-input"]
from pathlib import Path

from IPython.display import Markdown
from iterative_retraining.parameters import check_parameters
from iterative_retraining.runs.results import find_results
from iterative_retraining.studies import plots
from iterative_retraining.studies.report.chapters import scale_note
from iterative_retraining.studies.report.claims import (
    VERDICTS,
    claims_table,
    contracts_list,
    judge,
    read_claims,
)
from iterative_retraining.studies.report.evidence import read_evidence

check_parameters(globals(), "claims_file results scale")
results = Path(results or find_results()[0].parent)
claims = read_claims(claims_file or results.parent / "claims.yml")
runs = read_evidence(results)
Markdown(scale_note(scale))

# %% [markdown]
# ## Verdicts
#
# - **fails here**, **holds here**: the 95 % interval over seeds lies wholly on one side of the margin; or a test proves it.
# - **undecided**: the interval crosses the margin.
# - **a run failed**: too few seeds are left, since a run that the contract needs ended in an error, such as a loss that is not finite.
# - **not run yet**: runs are missing. Those of code that did not record its own definitions do not count.
# - **not testable here**: no run of this package could say.
#
# A verdict is about what was run here, at its scale; it is none about the paper's own experiments.

# %% mystnb={"figure": {"name": "fig-claims", "caption": "How many claims have which verdict."}, "image": {"alt": "A horizontal bar for each verdict, as long as the number of claims that have it."}}
verdicts = [judge(claim, runs).verdict for claim in claims]
figure = plots.verdict_counts({name: verdicts.count(name) for name in VERDICTS})

# %% [markdown]
# ## Every claim
#
# What failed here stands first. The last column has the numbers behind the verdict.

# %% tags=["hide-input"]
Markdown(claims_table(claims, runs))

# %% [markdown]
# ## The contracts
#
# In the order of the file `claims.yml`, which has the machine-readable rules beside them.

# %% tags=["hide-input"]
Markdown(contracts_list(claims))
