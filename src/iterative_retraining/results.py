"""Reading run directories: ledgers as one table, sample strips, floors; and publishing the small part of a run."""

import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from scipy import stats

from iterative_retraining.provenance import this_machine
from iterative_retraining.runs import RunError, read_config, read_ledger
from iterative_retraining.runs import read_floor as read_floor

PUBLISHED = ("config.json", "manifest.json", "ledger.jsonl", "floor.json")


def find_results(start: str | Path = ".") -> list[Path]:
    """The published run directories: those in the nearest ``results`` folder at or above ``start``.

    Raises FileNotFoundError if there is none.
    """
    for folder in [Path(start).resolve(), *Path(start).resolve().parents]:
        found = sorted(p.parent for p in (folder / "results").glob("*/ledger.jsonl"))
        if found:
            return found
    raise FileNotFoundError(f"no folder 'results' with runs at or above {Path(start).resolve()}; give run_dirs instead")


def read_runs(paths: Iterable[str | Path]) -> pd.DataFrame:
    """One row per run and generation: the ledger's columns, and run_id, path, dataset, model, scheme, lam, seed.

    ``lam`` is NaN for a scheme that has none. Raises RunError for a directory that is no run or has no generation yet.
    """
    tables = []
    for path in map(Path, paths):
        config, rows = read_config(path), read_ledger(path)
        if not rows:
            raise RunError(f"{path} holds no complete generation yet")
        columns = {key: config["identity"][key] for key in ("dataset", "model", "scheme", "seed")}
        lam = config["identity"]["lam"]
        columns["lam"] = np.nan if lam is None else lam
        tables.append(pd.DataFrame(rows).assign(run_id=config["run_id"], path=str(path), **columns))
    if not tables:
        raise RunError("no run directories were given")
    return pd.concat(tables, ignore_index=True)


def read_manifest(path: str | Path) -> dict:
    """The manifest of a run."""
    return json.loads((Path(path) / "manifest.json").read_text())


def read_previews(path: str | Path) -> np.ndarray:
    """The preview images of every complete generation, uint8 (generations, 16, H, W[, C]), same latents in each."""
    path, n = Path(path), len(read_ledger(Path(path)))
    whole = path / "samples.png"
    rows = [whole] if whole.is_file() else [path / f"preview-{t:04d}.png" for t in range(n)]
    strips = np.concatenate([np.asarray(Image.open(file)) for file in rows])
    size = strips.shape[0] // n
    return strips.reshape(n, size, -1, size, *strips.shape[2:]).swapaxes(1, 2)


def publish(runs: Sequence[str | Path], results: str | Path) -> list[Path]:
    """Copies the small part of each run into ``results/<run id>``, its previews joined into one samples.png.

    Returns the folders written.
    """
    targets = []
    for run in map(Path, runs):
        target = Path(results) / read_config(run)["run_id"]
        target.mkdir(parents=True, exist_ok=True)
        targets.append(target)
        for name in PUBLISHED:
            shutil.copyfile(run / name, target / name)
        strips = [np.asarray(Image.open(run / f"preview-{t:04d}.png")) for t in range(len(read_ledger(run)))]
        Image.fromarray(np.concatenate(strips)).save(target / "samples.png", optimize=True)
    return targets


def scale_note(scale: str, paths: Iterable[str | Path] = ()) -> str:
    """One Markdown paragraph: the scale and, of the runs at ``paths``, how many, which, and the code and hardware."""
    manifests = [read_manifest(path) for path in paths]
    attempts = [attempt for manifest in manifests for attempt in manifest["attempts"]] or [this_machine()]
    commits = sorted({str(a["git"]["commit"])[:10] + (" (modified)" if a["git"]["dirty"] else "") for a in attempts})
    machines = sorted({f"{a['hardware']['name']}, {a['hardware']['threads']} thread(s) a run" for a in attempts})
    torch = sorted({a["packages"]["torch"] for a in attempts})
    words = [f"**Scale** `{scale}`."]
    if manifests:
        words.append(f"{len(manifests)} runs: {', '.join('`' + m['run_id'] + '`' for m in manifests)}.")
    words.append(f"Code at commit {', '.join(commits)}; PyTorch {', '.join(torch)}; {'; '.join(machines)}.")
    return " ".join(words)


def arm_table(runs: pd.DataFrame, floor: dict) -> str:
    """A Markdown table of where the arms end: mean over seeds and 95 % t-interval, and the floor.

    "FID against λ = 0" is the difference to the control of the same seed. "FID trend" is the least-squares slope over
    the second half of the run, per retraining. With a single seed there are no intervals, and the table says so.
    """
    last = runs.generation.max()
    final, late = runs[runs.generation == last], runs[runs.generation >= last // 2]
    control = final[(final.scheme == "mix") & (final.lam == 0)].set_index("seed").fid
    trend = late.groupby("run_id").apply(_slope, include_groups=False)
    lines = ["| arm | FID | FID against λ = 0 | FID trend | precision | recall |", "|---|---|---|---|---|---|"]
    for (lam, scheme), table in final.assign(lam=final.lam.fillna(-1.0)).groupby(["lam", "scheme"]):
        against = (table.set_index("seed").fid - control).dropna().to_numpy()
        columns = [table.fid, against, trend[table.run_id], table.precision, table.recall]
        cells = [_interval(np.asarray(values)) for values in columns]
        if scheme == "mix" and lam == 0:
            cells[1] = "control"
        lines.append(f"| {f'λ = {lam:g}' if scheme == 'mix' else scheme.replace('_', ' ')} | {' | '.join(cells)} |")
    fid, precision, recall = (
        f"{np.mean(floor[m]):.3f} ({np.quantile(floor[m], 0.025):.3f} to {np.quantile(floor[m], 0.975):.3f})"
        for m in ("fid", "precision", "recall")
    )
    lines.append(f"| real vs real, n = {floor['n_images']} | {fid} | | | {precision} | {recall} |")
    n_seeds = final.seed.nunique()
    note = f"mean over {n_seeds} seeds ± 95 % t-interval" if n_seeds > 1 else "one seed, so no interval"
    return "\n".join(lines) + f"\n\nAfter {last} retrainings: {note}; floor: mean (2.5 to 97.5 %)."


def arm_summary(runs: pd.DataFrame) -> dict[str, str]:
    """The numbers that the text of the image chapter quotes, by name; "(not run)" where ``runs`` has no such arm."""
    final = runs[runs.generation == runs.generation.max()]
    synthetic = runs[runs.scheme == "fully_synthetic"].groupby("generation").fid.mean()
    mixed = final[final.scheme == "mix"].groupby("lam")[["fid", "precision"]].mean()
    found = {"retrainings": str(runs.generation.max()), "seeds": str(runs.seed.nunique())}
    if len(synthetic):
        found |= {"synthetic-first": f"{synthetic.iloc[0]:.2f}", "synthetic-last": f"{synthetic.iloc[-1]:.2f}"}
    if len(mixed):
        low, high, worst = mixed.index.min(), mixed.index.max(), mixed.fid.idxmax()
        found |= {"lam-low": f"{low:g}", "lam-high": f"{high:g}", "mix-worst-lam": f"{worst:g}"}
        found |= {f"precision-{end}": f"{mixed.precision[lam]:.2f}" for end, lam in (("low", low), ("high", high))}
        found["mix-worst"] = f"{mixed.fid[worst]:.2f}"
    names = ("synthetic-first", "synthetic-last", "mix-worst", "mix-worst-lam")
    names += ("lam-low", "lam-high", "precision-low", "precision-high")
    return dict.fromkeys(names, "(not run)") | found


def _slope(table: pd.DataFrame) -> float:
    return np.polyfit(table.generation, table.fid, 1)[0] if len(table) > 1 else np.nan


def _interval(values: np.ndarray) -> str:
    if len(values) == 0 or np.isnan(values).any():
        return ""
    if len(values) == 1:
        return f"{values[0]:.3f}"
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return f"{values.mean():.3f} ± {half:.3f}"
