"""Graphics cards as their driver lists them, and why PyTorch cannot use one that is there."""

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

FIELDS = ("name", "memory.total", "driver_version", "compute_cap")
# The least driver for Linux by the major version of the CUDA that PyTorch is built for (NVIDIA's release notes).
LEAST_DRIVER = {13: 580, 12: 525, 11: 450}
HOW = "README.md, An older driver, says what to install"


@dataclass(frozen=True)
class Gpu:
    """A card: its memory in MB, the version of its driver, its compute capability; 0 for what is not known."""

    name: str
    memory: int
    driver: str
    capability: float


def listed_gpus() -> list[Gpu]:
    """The cards that nvidia-smi lists; none where it is not there or fails."""
    if shutil.which("nvidia-smi") is None:
        return []
    for fields in (FIELDS, FIELDS[:3]):  # drivers from before 2021 do not know the last one
        query = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
        try:
            done = subprocess.run(query, capture_output=True, text=True, check=False, timeout=60)
        except (OSError, subprocess.SubprocessError):
            return []
        if done.returncode == 0:
            return [_gpu(line) for line in done.stdout.splitlines() if line.strip()]
    return []


def _gpu(line: str) -> Gpu:
    name, memory, driver, capability = [cell.strip() for cell in [*line.split(","), "", "", ""][:4]]
    return Gpu(name, int(_number(memory)), driver, _number(capability))


def _number(text: str) -> float:
    found = re.match(r"\d+(\.\d+)?", text)
    return float(found[0]) if found else 0.0


def why_no_gpu(gpus: Sequence[Gpu] | None = None) -> str:
    """Why PyTorch cannot use the cards that nvidia-smi lists, in one sentence; "" if it can, or if there are none."""
    import torch

    gpus = listed_gpus() if gpus is None else gpus
    if not gpus:
        return ""
    gpu, built = gpus[0], torch.version.cuda
    if built is None:
        return f"{gpu.name} is not used: PyTorch {torch.__version__} is built without CUDA; {HOW}"
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None and hidden.strip() in ("", "-1"):
        return f"{gpu.name} is not used: CUDA_VISIBLE_DEVICES = {hidden!r} hides it; unset that"
    least = LEAST_DRIVER.get(int(_number(built)), 0)
    if _number(gpu.driver) < least:
        return (
            f"{gpu.name} is not used: its driver is {gpu.driver}, and PyTorch {torch.__version__}, built for CUDA "
            f"{built}, needs {least} or newer; {HOW}"
        )
    newest = max(one.capability for one in gpus)
    supported = _least_capability(torch.cuda.get_arch_list())
    if 0 < newest < supported:
        return (
            f"{gpu.name} is not used: its compute capability is {newest}, and PyTorch {torch.__version__}, built for "
            f"CUDA {built}, needs {supported} or more; {HOW}"
        )
    if not torch.cuda.is_available():
        return (
            f"{gpu.name} is not used: PyTorch cannot start CUDA; python -c 'import torch; torch.cuda.init()' says why"
        )
    return ""


def _least_capability(architectures: Sequence[str]) -> float:
    """The least compute capability of a build, from names such as sm_75 and sm_90a; 0 if it has none."""
    numbers = [re.search(r"_(\d+)", one) for one in architectures]
    return min((int(found[1]) / 10 for found in numbers if found), default=0.0)
