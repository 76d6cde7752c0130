"""A profile as its rehearsal: every run cut to a few steps, with stand-ins for what is missing."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from iterative_retraining.rehearsal import N_RETRAIN_KILLED, Measured, Rehearsal, rehearsal_of, report

from profiles import Profile, load_profile


class RehearsedProfile:
    """The rehearsal of the profile in ``path`` on ``device``; see `iterative_retraining.rehearsal`.

    profile: its runs have other ids, and its name begins with "rehearsal-". killed: the run that is to be killed within
    a fit, the first arm, which has a retraining more.
    """

    def __init__(self, path: Path, device: str) -> None:
        name = f"rehearsal-{path.stem}"
        self._device, self._folder = device, Path("runs") / name / "weights"
        self._made: list[tuple[dict[str, Any], Rehearsal]] = []
        found = load_profile(path, change=self._rehearsed)
        self._of = {
            run_id: next(one for parameters, one in self._made if parameters == run.parameters)
            for run_id, run in found.runs.items()
        }
        self.killed, runs = found.arms[0], dict(found.runs)
        longer = min(self._of[self.killed].full["n_retrain"], N_RETRAIN_KILLED)
        killed = runs[self.killed]
        runs[self.killed] = replace(killed, parameters={**killed.parameters, "n_retrain": longer})
        self.profile = Profile(name, f"Rehearsal, a few steps: {found.description}", runs, {}, found.resources)

    def _rehearsed(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        found = rehearsal_of({**parameters, "device": self._device}, self._folder)
        own = {name: value for name, value in found.parameters.items() if name != "device"}
        self._made.append((own, found))
        return own

    def report(self, root: Path) -> str:
        """What the finished runs below ``root`` say. Raises RunError if one is damaged."""
        return report({run_id: Measured(one, root / run_id) for run_id, one in self._of.items()})
