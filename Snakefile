# The graph of a sweep: runs -> chapters -> book. Snakemake decides what is missing; every run resumes by itself.
#
#   snakemake --cores all                            the profile `quick`, up to its book
#   snakemake --cores all --config profile=cpu       another profile
#   snakemake sweep --cores all --config profile=cpu   the runs alone
#   snakemake -n                                     what is missing
#   snakemake sweep --cores all --resources gpu=4 --config profile=cpu device=cuda   four GPUs, a run on each
#   snakemake remeasured --cores all --config profile=cpu remeasure="--k 10"         all that is kept, by other settings
#   snakemake sweep --cores all --config profile=paper/edm-cifar10 rehearsal=true    a few steps of it, to see that it works
#   snakemake sweep --workflow-profile workflow/slurm --config profile=cpu           on a Slurm cluster
#   snakemake sweep --cores all --resources gpu=4 --config profile=paper/edm-cifar10 device=cuda   a sweep of the paper
#
# Keep going after a failed run: --keep-going. A killed sweep: the same command again (after kill -9
# `snakemake --unlock` before it).

import hashlib
import json
import os
import shlex
import sys
from pathlib import Path

sys.path.insert(0, str(Path(workflow.basedir) / "workflow"))
from iterative_retraining.errors import ConfigError, refuse_unknown
from iterative_retraining.runs.reading import read_ledger
from profiles import load_profile
from rehearsed_profile import RehearsedProfile

workdir: workflow.basedir

refuse_unknown("--config key", config, ("profile", "device", "runs_per_gpu", "remeasure", "rehearsal"))
profile_file = Path(workflow.basedir) / "profiles" / f"{config.get('profile', 'quick')}.yml"
rehearsed = None
if str(config.get("rehearsal", False)).lower() == "true":
    rehearsed = RehearsedProfile(profile_file, str(config.get("device", "auto")))
elif str(config.get("rehearsal", False)).lower() != "false":
    raise ConfigError(f"--config rehearsal={config['rehearsal']} is not allowed: it is true or false")
profile = rehearsed.profile if rehearsed else load_profile(profile_file)
root = Path("runs") / profile.name
SHOW_RUNS = ("index", "05_images", "05_controls", "06_paper_scale", "status")  # chapters that read run directories
device, per_gpu = str(config.get("device", "auto")), config.get("runs_per_gpu", 1)
kind, _, index = device.partition(":")
if kind not in ("auto", "cpu", "cuda") or (":" in device and not (kind == "cuda" and index.isdigit())):
    raise ConfigError(f"--config device={device} is not allowed; allowed: auto, cpu, cuda, cuda:N")
if type(per_gpu) is not int or per_gpu < 1:
    raise ConfigError(f"--config runs_per_gpu={per_gpu} is not allowed: it counts runs at a time on one GPU")
# A run on `cuda` takes GPUs that are free; one on `cuda:N` has chosen.
n_gpus = profile.resources.get("gpus_per_run", 1) if device == "cuda" else 1


def gpus(n):
    taking = [sys.executable, "workflow/on_gpu.py", "--gpus", str(n), "--per-gpu", str(per_gpu), "--"]
    return taking if device == "cuda" else []


on_gpu = gpus(1)
# glibc gives large blocks back to the system at once, and a network asks for the same ones in every step. Kept, sampling
# digits is 1.1 to 1.4 times as fast, training 1.03 to 1.1 times (benchmarks/README.md). Other C libraries pass it over.
memory = " ".join(f"MALLOC_{what}_THRESHOLD_={2**30}" for what in ("MMAP", "TRIM"))
again = shlex.split(str(config.get("remeasure", "")))  # options of iterative_retraining.remeasure
measurement = hashlib.sha256(json.dumps(again).encode()).hexdigest()[:10]
if workflow.is_main_process:  # a marker says that a run is complete; its ledger knows
    for run_id, run in profile.runs.items():
        if len(read_ledger(root / run_id)) <= run.parameters["n_retrain"]:
            (root / "complete" / run_id).unlink(missing_ok=True)
    for marker in (root / "remeasured").glob("*/*"):  # it names the ledgers that were there after it
        ledgers = marker.read_text().splitlines()
        if not ledgers or not all(map(os.path.isfile, ledgers)):
            marker.unlink()


wildcard_constraints:
    run_id="[^/]+",
    chapter="[^/]+",


def run_dir(run_id):
    return str(root / run_id)


def run_parameters(wildcards):
    run = profile.runs[wildcards.run_id]
    start = {"init": run_dir(run.init)} if run.init else {}
    return json.dumps({**run.parameters, **start, "run_dir": run_dir(run.run_id), "device": device})


def kill(wildcards):
    """What starts the first arm of a rehearsal and kills it in the middle of a fit; nothing for all others."""
    if rehearsed is None or wildcards.run_id != rehearsed.killed:
        return ["true"]
    return [sys.executable, "-m", "iterative_retraining.rehearsal", run_parameters(wildcards)]


def run_command(wildcards):
    """A run by one process is a notebook, and leaves an executed one; a notebook cannot be several processes."""
    given = run_parameters(wildcards)
    if n_gpus == 1:
        options = ["--no-progress-bar", "--log-output", "--start-timeout", "300", "-y", given]
        log = str(root / "logs" / f"{wildcards.run_id}.ipynb")
        return [*gpus(1), "papermill", "notebooks/retrain.ipynb", log, *options]
    several = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(n_gpus)]
    parameters = [word for name, value in json.loads(given).items() for word in ("-p", name, json.dumps(value))]
    return [*gpus(n_gpus), *several, "-m", "iterative_retraining", *parameters]


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
        [root / "rehearsal.md"] if rehearsed else [],


# The marker is the output, not the run directory: Snakemake deletes the outputs of a job before it runs it again.
rule run:
    input:
        lambda w: [str(root / "complete" / profile.runs[w.run_id].init)] if profile.runs[w.run_id].init else [],
    output:
        touch(root / "complete" / "{run_id}"),
    params:
        command=run_command,
        kill=kill,
    log:
        text=root / "logs" / "{run_id}.txt",
        **({"notebook": root / "logs" / "{run_id}.ipynb"} if n_gpus == 1 else {}),
    threads: profile.resources["threads"]
    resources:
        gpu=n_gpus if device.startswith("cuda") else 0,
        mem_mb=profile.resources.get("mem_mb", 4000),
        runtime=profile.resources.get("runtime", 240),
    shell:
        "export {memory} OMP_NUM_THREADS={threads}; {on_gpu:q} {params.kill:q} 2> {log.text:q}"
        " && {params.command:q} > {log.text:q} 2>&1"
        " || {{ tail -n 3 {log.text:q} >&2; exit 1; }}"


# What a rehearsal says: seconds a step, memory, what the sweep will take here, what is missing.
rule report_rehearsal:
    input:
        expand(str(root / "complete" / "{run_id}"), run_id=profile.runs),
    output:
        root / "rehearsal.md",
    run:
        text = rehearsed.report(root)
        Path(output[0]).write_text(text + "\n")
        print(text, flush=True)


# What the runs of the profile kept, measured again: see python -m iterative_retraining.remeasure --help.
rule remeasured:
    input:
        expand(str(root / "remeasured" / measurement / "{run_id}"), run_id=profile.arms),


rule remeasure:
    input:
        root / "complete" / "{run_id}",
    output:
        root / "remeasured" / measurement / "{run_id}",
    params:
        run=lambda w: run_dir(w.run_id),
    log:
        root / "logs" / f"{{run_id}}-{measurement}.txt",
    threads: profile.resources["threads"]
    resources:
        gpu=1 if device.startswith("cuda") else 0,
        mem_mb=profile.resources.get("mem_mb", 4000),
        runtime=profile.resources.get("runtime", 240),
    shell:
        "OMP_NUM_THREADS={threads} {on_gpu:q} {sys.executable:q} -m iterative_retraining.remeasure {params.run:q}"
        " --device {device:q} {again:q} > {log:q} 2>&1 && ls {params.run:q}/ledger-*.jsonl > {output:q}"
        " || {{ tail -n 3 {log:q} >&2; exit 1; }}"


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
        from iterative_retraining.studies.report import front, groups

        publishing.publish(params.runs, "results")
        digits = results.of_dataset(results.find_results(), "digits")
        if digits:
            shown = groups.main_groups(groups.read_groups(digits))
            figure = plots.family_curves(shown, results.read_floor(digits[0]), ["fid", "precision", "recall"])
            figure.savefig("results/quality.png", dpi=110)
            model = next(iter(shown.values())).model.iloc[0]
            strips = front.front_previews(front.front_runs(digits, model))
            last = {label: strip[-1] for label, strip in strips.items()}
            card = plots.social_card(last, "When models learn from their own samples")
            card.savefig("book/_static/card.png", dpi=100)
        for chapter, given in params.chapters.items():
            execute(f"notebooks/{chapter}.ipynb", f"book/chapters/{chapter}.ipynb", given)
