"""A profile as its rehearsal: every run cut to a few steps, with stand-ins for what is missing."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from iterative_retraining.rehearsal import Measured, Rehearsal, rehearsal_of, report

from profiles import Profile, load_profile


class RehearsedProfile:
    """The rehearsal of the profile in ``path`` on ``device``; see `iterative_retraining.rehearsal`.

    profile: its runs have other ids, and its name begins with "rehearsal-".
    """

    def __init__(self, path: Path, device: str) -> None:
        name = f"rehearsal-{path.stem}"
        self._device, self._folder = device, Path("runs") / name / "weights"
        self._rehearsals: list[Rehearsal] = []
        found = load_profile(path, change=self._rehearsed)
        self.profile = Profile(name, f"Rehearsal, a few steps: {found.description}", found.runs, {}, found.resources)

    def _rehearsed(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        found = rehearsal_of({**parameters, "device": self._device}, self._folder)
        self._rehearsals.append(found)
        return {name: value for name, value in found.parameters.items() if name != "device"}

    def report(self, root: Path) -> str:
        """What the finished runs below ``root`` say. Raises RunError if one is damaged."""
        by_parameters = {
            id(run): one
            for run in self.profile.runs.values()
            for one in self._rehearsals
            if run.parameters == {name: value for name, value in one.parameters.items() if name != "device"}
        }
        runs = {run_id: by_parameters[id(run)] for run_id, run in self.profile.runs.items()}
        return report({run_id: Measured(one, root / run_id) for run_id, one in runs.items()})
