"""The schemas of what a run directory holds as JSON; keys that they do not name are allowed unless they say so."""

from typing import Any


def _object(required: str, **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": required.split(), "properties": properties}


TEXT, NUMBER, MAPPING = {"type": "string"}, {"type": "number"}, {"type": "object"}
COUNT = {"type": "integer", "minimum": 0, "maximum": 2**63 - 1}
SECONDS = {"type": "number", "minimum": 0}
DIGEST = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
TEXT_OR_NULL, COUNT_OR_NULL = {"type": ["string", "null"]}, {"type": ["integer", "null"], "minimum": 0}

IDENTITY = _object(
    "dataset model scheme lam seed options init",
    **dict.fromkeys(("dataset", "model", "scheme", "init", "latents", "selector"), TEXT),
    **dict.fromkeys(("n_images_initial", "n_images_per_retraining"), COUNT_OR_NULL),
    lam={"type": ["number", "null"], "minimum": 0},
    seed=COUNT,
    n_real=COUNT,
    rare_class=COUNT,
    rare_share=NUMBER,
    options={"type": "object", "properties": {"network": TEXT, "solver": TEXT}},
    scheme_options=MAPPING,
    keep_rate=NUMBER,
    selector_options=MAPPING,
    rehearsal={"type": "boolean"},
)
CONFIG = _object("run_id identity", run_id=TEXT, identity=IDENTITY)
ROW = {
    **_object(
        "generation n_images n_real n_synthetic seconds_fit seconds_sample seconds_metrics checkpoint_sha256 "
        "samples_sha256",
        **dict.fromkeys(("generation", "n_images", "n_real", "n_synthetic"), COUNT),
        **dict.fromkeys(("seconds_fit", "seconds_sample", "seconds_metrics"), SECONDS),
        **dict.fromkeys(("checkpoint_sha256", "samples_sha256"), DIGEST),
    ),
    "additionalProperties": NUMBER,
}
GIT = _object("commit dirty", commit=TEXT_OR_NULL, dirty={"type": ["boolean", "null"]})
HARDWARE = _object("device name threads", device=TEXT, name=TEXT, threads={**COUNT, "minimum": 1}, cpu_capability=TEXT)
MADE_BY = {
    "source_sha256": DIGEST,
    "git": GIT,
    "python": TEXT,
    "packages": {"type": "object", "additionalProperties": TEXT},
    "hardware": HARDWARE,
}
ATTEMPT = _object(
    "started first_generation git python packages hardware",
    **MADE_BY,
    **dict.fromkeys(("started", "ended", "message"), TEXT),
    outcome={"enum": ["complete", "stopped", "failed"]},
    first_generation=COUNT,
    last_generation={"type": "integer", "minimum": -1},
    keep_every=COUNT,
    keep_samples=COUNT,
    world_size={**COUNT, "minimum": 1},
    seconds=SECONDS,
    **dict.fromkeys(("peak_memory_bytes", "peak_device_memory_bytes"), COUNT),
)
ATTEMPT["dependentRequired"] = {"outcome": ["message", "ended"]}
MANIFEST = _object(
    "run_id config n_retrain real_sha256 attempts",
    config=IDENTITY,
    measured=_object("", features=TEXT_OR_NULL, metrics={"type": ["array", "null"], "items": TEXT}),
    sources={
        "type": "object",
        "additionalProperties": {
            "type": "array",
            "items": {"type": "array", "items": TEXT, "minItems": 2, "maxItems": 2},
        },
    },
    run_id=TEXT,
    real_sha256=DIGEST,
    n_retrain=COUNT,
    attempts={"type": "array", "items": ATTEMPT, "minItems": 1},
    initial_weights_sha256=TEXT_OR_NULL,
    initial_identity={"anyOf": [{"type": "null"}, IDENTITY]},
    reproduced={"type": "array", "items": _object("generations source_sha256", generations=COUNT, **MADE_BY)},
)
_PLAIN = {"type": ["string", "number", "null"]}
FLOOR = {
    **_object("features n_images", features=TEXT, n_images={**COUNT, "minimum": 1}),
    "additionalProperties": {
        "anyOf": [
            _PLAIN,
            {"type": "array", "items": NUMBER, "minItems": 1},
            {"type": "object", "additionalProperties": _PLAIN},
        ]
    },
}
MEASUREMENT = _object(
    "run_id features settings real_sha256 attempts",
    run_id=TEXT,
    features=TEXT,
    settings=MAPPING,
    metrics={"type": "array", "items": TEXT},
    real_sha256=DIGEST,
    attempts={"type": "array", "items": _object("started source_sha256", started=TEXT, **MADE_BY), "minItems": 1},
)
SCHEMAS = {"config": CONFIG, "row": ROW, "manifest": MANIFEST, "floor": FLOOR, "measurement": MEASUREMENT}
