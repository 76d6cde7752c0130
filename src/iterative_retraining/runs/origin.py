"""What a run starts from, by name."""

from pathlib import Path

from iterative_retraining.config import ConfigError
from iterative_retraining.files import file_sha256
from iterative_retraining.models.pretrained import diffusers_weights
from iterative_retraining.runs.directory import read_config, read_ledger
from iterative_retraining.runs.locks import RunError
from iterative_retraining.studies.report.protocol import where_from


def init_identity(init: str | Path) -> str:
    """What names the weights that a run starts from: the run id of a run directory, or the SHA-256 of the file.

    Raises ConfigError if ``init`` is neither a file, nor the folder of a diffusers model, nor a run directory with at
    least one complete generation.
    """
    path = Path(init)
    if not path.exists():
        raise ConfigError(
            f"init = {str(init)!r} is no run directory and no file of weights: nothing is there{where_from(init)}"
        )
    weights = path if path.is_file() else diffusers_weights(path)
    if weights is not None:
        return f"{path.absolute().name}@sha256:{file_sha256(weights)}"
    try:
        config, rows = read_config(path), read_ledger(path)
    except (OSError, RunError) as error:
        raise ConfigError(
            f"init = {str(init)!r} is no run directory and no file of weights, nor the folder of a diffusers model: "
            f"{error}"
        ) from error
    if not rows:
        raise ConfigError(f"init = {str(init)!r} holds no complete generation yet; finish that run first")
    return f"{config['run_id']}@{rows[-1]['generation']}"
