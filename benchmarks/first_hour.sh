#!/usr/bin/env bash
# What to do with the first hour on a GPU, in order of value. Each step that succeeds is not done again, so the script may
# be killed and started again; a step that fails leaves its log and does not keep the next ones from being done.
#
#   benchmarks/first_hour.sh [--dry-run] [--steps FILE] [FOLDER]      (FOLDER: runs/first_hour)
#
# Leaves FOLDER/report.md, to be committed, with the end of every step's output. EDM_REFERENCE names a clone of
# github.com/NVlabs/edm, PEAK_FLOPS what the card does in bfloat16 a second (an H100: 989e12). Without a GPU every step
# that needs one is skipped, and said to be. A line of FILE is a step: name, gpu or cpu, minutes, command, by tabs.
set -uo pipefail
cd "$(dirname "$0")/.."

dry= steps= folder=runs/first_hour
while [ $# -gt 0 ]; do
    case $1 in
        --dry-run) dry=yes ;;
        --steps) steps=${2:?--steps needs a file}; shift ;;
        -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;;
        -*) echo "error: unknown option $1; see --help" >&2; exit 2 ;;
        *) folder=$1 ;;
    esac
    shift
done
python=${PYTHON:-python}
reference=${EDM_REFERENCE:-edm} peak=${PEAK_FLOPS:-989e12}
card="--device cuda --network cifar10 --images 5120 --samples 512 --peak-flops $peak"

default_steps() {
    printf '%s\t%s\t%s\t%s\n' \
        machine cpu 1 "$python -c 'import torch; print(torch.__version__, torch.version.cuda, torch.cuda.is_available(), torch.get_num_threads())'" \
        card gpu 1 "nvidia-smi" \
        check gpu 1 "$python workflow/plan.py paper/edm-cifar10 --check" \
        tests gpu 5 "$python -m pytest -q -m gpu" \
        memory gpu 3 "$python benchmarks/memory.py --device cuda" \
        rehearsal-edm-cifar10 gpu 5 "snakemake sweep --cores all --resources gpu=1 --rerun-incomplete --config profile=paper/edm-cifar10 device=cuda rehearsal=true && cat runs/rehearsal-edm-cifar10/rehearsal.md" \
        reference gpu 15 "$python benchmarks/edm_reference.py --reference '$reference' $card --batch 256" \
        rehearsal-edm-ffhq64 gpu 10 "snakemake sweep --cores all --resources gpu=1 --rerun-incomplete --config profile=paper/edm-ffhq64 device=cuda rehearsal=true && cat runs/rehearsal-edm-ffhq64/rehearsal.md" \
        rehearsal-otcfm-cifar10 gpu 5 "snakemake sweep --cores all --resources gpu=1 --rerun-incomplete --config profile=paper/otcfm-cifar10 device=cuda rehearsal=true && cat runs/rehearsal-otcfm-cifar10/rehearsal.md" \
        rehearsal-ddpm-cifar10 gpu 5 "snakemake sweep --cores all --resources gpu=1 --rerun-incomplete --config profile=paper/ddpm-cifar10 device=cuda rehearsal=true && cat runs/rehearsal-ddpm-cifar10/rehearsal.md" \
        precision gpu 15 "$python benchmarks/precision.py --device cuda --folder '$folder/precision'" \
        fashion gpu 600 "snakemake sweep --cores all --resources gpu=1 --rerun-incomplete --config profile=fashion device=cuda && $python -m iterative_retraining.status runs/fashion/*"
}

has_gpu() { nvidia-smi --query-gpu=index --format=csv,noheader 2> /dev/null | grep -q .; }
gpu=no; has_gpu && gpu=yes
list=$(if [ -n "$steps" ]; then cat -- "$steps" || exit 1; else default_steps; fi) || exit 1

if [ -n "$dry" ]; then
    while IFS=$'\t' read -r name needs minutes command; do
        note=; [ "$needs" = gpu ] && [ $gpu = no ] && note=" (skipped: no GPU here)"
        [ -f "$folder/$name.done" ] && note=" (done)"
        printf '%s, about %s min%s:\n    %s\n' "$name" "$minutes" "$note" "$command"
    done <<< "$list"
    exit 0
fi

report() { # the report as it stands now
    echo "# The first hour on a GPU"
    echo
    echo "Commit $(git rev-parse HEAD 2> /dev/null || echo unknown), $(uname -srm), GPU: $gpu."
    echo
    echo "| step | outcome | seconds |"
    echo "|---|---|---|"
    while IFS=$'\t' read -r name _; do
        echo "| $name | $(cat "$folder/$name.outcome" 2> /dev/null || echo "not run | ") |"
    done <<< "$list"
    while IFS=$'\t' read -r name needs minutes command; do
        [ -s "$folder/$name.log" ] || continue
        printf '\n## %s\n\n`%s`\n\n```text\n%s\n```\n' "$name" "$command" "$(tail -n 40 "$folder/$name.log")"
    done <<< "$list"
}

mkdir -p "$folder" || exit 1
failed=0
while IFS=$'\t' read -r name needs minutes command <&3; do
    [ -f "$folder/$name.done" ] && continue
    if [ "$needs" = gpu ] && [ $gpu = no ]; then
        echo "skipped: no GPU | " > "$folder/$name.outcome"
        echo "$name: skipped, no GPU here"
        continue
    fi
    echo "$name: about $minutes min"
    start=$SECONDS
    echo "running, or killed | " > "$folder/$name.outcome"
    if bash -c "$command" > "$folder/$name.log" 2>&1 < /dev/null; then
        touch "$folder/$name.done"
        echo "done | $((SECONDS - start))" > "$folder/$name.outcome"
    else
        echo "failed, exit status $? | $((SECONDS - start))" > "$folder/$name.outcome"
        failed=1
        tail -n 3 "$folder/$name.log" >&2
    fi
    report > "$folder/.report.part" && mv "$folder/.report.part" "$folder/report.md"
done 3<<< "$list"
report > "$folder/.report.part" && mv "$folder/.report.part" "$folder/report.md"
echo "$folder/report.md"
exit $failed
