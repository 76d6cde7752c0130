# The graph of a sweep: runs -> chapters -> book. Snakemake decides what is missing; every run resumes by itself.
#
#   snakemake --cores all                            the profile `quick`, up to its book
#   snakemake --cores all --config profile=cpu       another profile
#   snakemake sweep --cores all --config profile=cpu   the runs alone
#   snakemake -n                                     what is missing
#   snakemake sweep --cores all --resources gpu=4 --config profile=cpu device=cuda   four GPUs, a run on each
#   snakemake sweep --workflow-profile workflow/slurm --config profile=cpu           on a Slurm cluster
#   snakemake sweep --cores all --resources gpu=4 --config profile=paper/edm-cifar10 device=cuda   a sweep of the paper
#
# Keep going after a failed run: --keep-going. A killed sweep: the same command again (after kill -9
# `snakemake --unlock` before it).

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(workflow.basedir) / "workflow"))
from iterative_retraining.errors import ConfigError, refuse_unknown
from iterative_retraining.runs.reading import read_ledger
from profiles import load_profile

workdir: workflow.basedir

refuse_unknown("--config key", config, ("profile", "device", "runs_per_gpu"))
profile = load_profile(Path(workflow.basedir) / "profiles" / f"{config.get('profile', 'quick')}.yml")
root = Path("runs") / profile.name
SHOW_RUNS = ("index", "05_images", "05_controls", "06_paper_scale", "status")  # chapters that read run directories
device, per_gpu = str(config.get("device", "auto")), config.get("runs_per_gpu", 1)
kind, _, index = device.partition(":")
if kind not in ("auto", "cpu", "cuda") or (":" in device and not (kind == "cuda" and index.isdigit())):
    raise ConfigError(f"--config device={device} is not allowed; allowed: auto, cpu, cuda, cuda:N")
if type(per_gpu) is not int or per_gpu < 1:
    raise ConfigError(f"--config runs_per_gpu={per_gpu} is not allowed: it counts runs at a time on one GPU")
# A run on `cuda` takes a GPU that is free; one on `cuda:N` has chosen.
on_gpu = [sys.executable, "workflow/on_gpu.py", "--per-gpu", str(per_gpu), "--"] if device == "cuda" else []
# glibc gives large blocks back to the system at once, and a network asks for the same ones in every step. Kept, sampling
# digits is 1.1 to 1.4 times as fast, training 1.03 to 1.1 times (benchmarks/README.md). Other C libraries pass it over.
memory = " ".join(f"MALLOC_{what}_THRESHOLD_={2**30}" for what in ("MMAP", "TRIM"))
if workflow.is_main_process:  # a marker says that a run is complete; its ledger knows
    for run_id, run in profile.runs.items():
        if len(read_ledger(root / run_id)) <= run.parameters["n_retrain"]:
            (root / "complete" / run_id).unlink(missing_ok=True)


wildcard_constraints:
    run_id="[^/]+",
    chapter="[^/]+",


def run_dir(run_id):
    return str(root / run_id)


def run_parameters(wildcards):
    run = profile.runs[wildcards.run_id]
    start = {"init": run_dir(run.init)} if run.init else {}
    return json.dumps({**run.parameters, **start, "run_dir": run_dir(run.run_id), "device": device})


def chapter_arguments(chapter, run_dirs):
    shown = {"scale": profile.name}
    if chapter in SHOW_RUNS:
        shown = {"scale": f"{profile.name}: {profile.description}", "run_dirs": run_dirs}
    return {**shown, **profile.chapters[chapter]}


def chapter_parameters(wildcards):
    return json.dumps(chapter_arguments(wildcards.chapter, [run_dir(arm) for arm in profile.arms]))


rule all:
    input:
        root / "book" / "_build" / "html" / "index.html",


rule sweep:
    input:
        expand(str(root / "complete" / "{run_id}"), run_id=profile.runs),


# The marker is the output, not the run directory: Snakemake deletes the outputs of a job before it runs it again.
rule run:
    input:
        lambda w: [str(root / "complete" / profile.runs[w.run_id].init)] if profile.runs[w.run_id].init else [],
    output:
        touch(root / "complete" / "{run_id}"),
    params:
        notebook=run_parameters,
    log:
        notebook=root / "logs" / "{run_id}.ipynb",
        text=root / "logs" / "{run_id}.txt",
    threads: profile.resources["threads"]
    resources:
        gpu=1 if device.startswith("cuda") else 0,
        mem_mb=profile.resources.get("mem_mb", 4000),
        runtime=profile.resources.get("runtime", 240),
    shell:
        "{memory} OMP_NUM_THREADS={threads} {on_gpu:q} papermill notebooks/retrain.ipynb {log.notebook:q} --no-progress-bar"
        " --log-output --start-timeout 300 -y {params.notebook:q} > {log.text:q} 2>&1"
        " || {{ tail -n 3 {log.text:q} >&2; exit 1; }}"


rule chapter:
    input:
        "notebooks/{chapter}.ipynb",
        lambda w: rules.sweep.input if w.chapter in SHOW_RUNS else [],
    output:
        root / "chapters" / "{chapter}.ipynb",
    params:
        notebook=chapter_parameters,
    log:
        root / "logs" / "{chapter}.txt",
    resources:
        mem_mb=4000,
        runtime=240,
    shell:
        "OMP_NUM_THREADS={threads} {sys.executable:q} workflow/execute.py {input[0]:q} {output:q} {params.notebook:q}"
        " > {log:q} 2>&1 || {{ tail -n 3 {log:q} >&2; exit 1; }}"


rule book:
    input:
        chapters=expand(str(root / "chapters" / "{chapter}.ipynb"), chapter=profile.chapters),
        pages=[str(p) for p in sorted(Path("book").rglob("*")) if p.is_file() and "_build" not in p.parts],
        settings=["_config.yml", "_toc.yml"],
    output:
        root / "book" / "_build" / "html" / "index.html",
    params:
        book=root / "book",
    log:
        root / "logs" / "book.txt",
    shell:
        "rm -rf {params.book:q} && mkdir -p {params.book:q} && cp -rL book/. {params.book:q}"
        " && rm -rf {params.book:q}/_build && cp {input.chapters:q} {params.book:q}/chapters/"
        " && ln -sf chapters/index.ipynb {params.book:q}/index.ipynb"
        " && jupyter-book build {params.book:q} -n -W > {log:q} 2>&1 || {{ tail -n 20 {log:q} >&2; exit 1; }}"


# Puts the small part of this profile's runs into results/, and its chapters, executed on those, into book/chapters/.
rule published:
    input:
        rules.sweep.input,
        expand("notebooks/{chapter}.ipynb", chapter=profile.chapters),
    params:
        runs=[run_dir(arm) for arm in profile.arms],
        chapters={c: chapter_arguments(c, [f"results/{arm}" for arm in profile.arms]) for c in profile.chapters},
    run:
        import matplotlib
        from execute import execute

        matplotlib.use("Agg")
        from iterative_retraining.studies import plots
        from iterative_retraining.runs import publishing, results
        from iterative_retraining.studies.report import chapters

        publishing.publish(params.runs, "results")
        digits = results.of_dataset(results.find_results(), "digits")
        if digits:
            families = chapters.read_families(digits)
            figure = plots.family_curves(families, results.read_floor(digits[0]), ["fid", "precision", "recall"])
            figure.savefig("results/quality.png", dpi=110)
        for chapter, given in params.chapters.items():
            execute(f"notebooks/{chapter}.ipynb", f"book/chapters/{chapter}.ipynb", given)
