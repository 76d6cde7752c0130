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
# # Status of the runs
#
# *Which runs are behind this book, are they complete, how often were they interrupted, and was the code that made them the code that is here now?*

# %% tags=["parameters"]
run_dirs = []
scale = "by hand"

# %% tags=["hide-input"]
from pathlib import Path

from IPython.display import Markdown
from iterative_retraining.parameters import check_parameters
from iterative_retraining.runs.provenance import read_manifest
from iterative_retraining.runs.results import find_results, read_runs
from iterative_retraining.status import markdown, stale_note, status_table
from iterative_retraining.studies import plots
from iterative_retraining.studies.report.chapters import scale_note
from iterative_retraining.studies.report.spent import spent_table

check_parameters(globals(), "run_dirs scale")
run_dirs = run_dirs or find_results()
Markdown(scale_note(scale))

# %% [markdown]
# ## Every run
#
# - **state**: *complete*; *running*, a process holds its lock; *stopped*, by SIGTERM as a cluster sends it, or from the keyboard; *failed*, with the
#   error as the last message; *interrupted*, killed without a word. All but *failed* go on with the same command, and most that failed do too.
# - **attempts**: how often the run was started; every attempt after the first went on from the last complete generation.
# - **code**: *current* if every generation was made by the code that is here now, in all that such a run can reach; *stale* if not, with the
#   functions and classes that have changed; *earlier code* if the run did not record them, such a run is to be replaced; *reproduced to K* if either,
#   but the code that is here now ran it again up to generation K and came to the same weights, samples and metrics, bit for bit:
#   `python -m iterative_retraining.reproduce results/* --generations K`.
# - **commit**: that of each attempt; `+` where files differed from it.
#
# The same table in a terminal: `python -m iterative_retraining.status runs/cpu/*`.

# %% tags=["hide-input"]
table = status_table(run_dirs)
Markdown("\n\n".join(filter(None, [stale_note(run_dirs), markdown(table)])))

# %% [markdown]
# ## Interruptions

# %% mystnb={"figure": {"name": "fig-attempts", "caption": "Complete generations of every run (blue, of those wanted in grey). A red mark: there an attempt ended before the run was complete, and the next went on."}, "image": {"alt": "A horizontal bar for each run, with red marks where it was interrupted and resumed."}}
manifests = [read_manifest(path) for path in run_dirs]
starts = {
    m["run_id"]: [a["first_generation"] for a in m["attempts"]] for m in manifests
}
shown = {
    r.run_id: (r.generations, r.wanted, starts[r.run_id]) for r in table.itertuples()
}
figure = plots.attempts_by_run(shown)

# %% [markdown]
# ## Where the time goes

# %% mystnb={"figure": {"name": "fig-seconds", "caption": "Wall time of a retraining by model and arm: median over seeds and retrainings."}, "image": {"alt": "Horizontal bars of seconds a retraining, split into fit, samples and metrics."}}
runs = read_runs(run_dirs)
figure = plots.seconds_by_stage(runs)

# %% [markdown]
# By the figure of the paper that a study stands for; without the training of the θ₀ that runs share.

# %% tags=["hide-input"]
hours = runs[[c for c in runs if c.startswith("seconds_")]].sum().sum() / 3600
together = f"All generations of these {len(table)} runs together: {hours:.1f} hours of wall time."
plane = Path(run_dirs[0]).parent / "plane.json"
Markdown(f"{spent_table(run_dirs, plane)}\n\n{together}")
