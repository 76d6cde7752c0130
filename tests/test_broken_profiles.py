"""Whatever a profile's file holds, it is planned whole, or refused with its name and the line of what is wrong."""

from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st

from iterative_retraining.errors import ConfigError

from profiles import load_profile

# Lines are counted: `run` begins on line 3, the arms are on lines 8 and 9.
TEXT = """\
description: tiny
seeds: [0]
run:
  dataset: digits
  model: gaussian
  n_retrain: 2
arms:
  - {scheme: fully_synthetic}
  - {scheme: mix, lam: 0.5}
"""


def saved(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "tiny.yml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("lam: 0.5", "lam: -1", "line 9: lam = -1 is not allowed"),
        ("lam: 0.5", "lam: []", r"line 9: lam = \[\] is not allowed: a list stands for one arm or more"),
        ("lam: 0.5", "lam: [0.5, 1, -1]", "line 9: lam = -1 is not allowed"),
        ("lam: 0.5", "lam: [0.5, 0.50]", r"line 9: this arm plans digits-\S+-lam0.5-\S+ again; the arm of line 9 does"),
        ("lam: 0.5", "lam:", "line 9: lam = None is not allowed"),
        ("lam: 0.5", "lam: 0.5, lam: 1", "line 9: key 'lam' is there twice"),
        ("{scheme: mix, lam: 0.5}", "\n    scheme: mix\n    lamb: 1", "line 11: unknown key of an arm 'lamb'"),
        ("{scheme: mix, lam: 0.5}", "{scheme: fully_synthetic}", r"line 9: this arm plans .* the arm of line 8 does"),
        ("model: gaussian", "model: gausian", "line 5: unknown model 'gausian'"),
        ("model: gaussian", "model_options: {\n      widht: 3}", "line 6: unknown option 'widht' of model 'edm'"),
        ("  model: gaussian", "  model: edm\n  dataset: digits", "line 6: key 'dataset' is there twice"),
        ("n_retrain: 2", "n_retrain: two", "line 6: n_retrain = 'two' is not allowed"),
        ("  n_retrain: 2\n", "", "line 7: key 'n_retrain' is missing"),
        ("seeds: [0]", "seeds: [0,\n  zero]", "line 3: seed = 'zero' is not allowed"),
        ("seeds: [0]", "seeds: [0", "this is not the YAML of a profile: line 3: expected ',' or ']'"),
        ("seeds: [0]\n", "", "tiny.yml: key 'seeds' is missing"),
        ("seeds: [0]", "seeds: [2020-13-45]", "line 2: seed = '2020-13-45' is not allowed"),
        ("seeds: [0]", "seeds: [1:30]", "line 2: seed = '1:30' is not allowed"),
        ("lam: 0.5}", "model_options: {day: 2020-01-01}}", "line 9: unknown option 'day'"),
    ],
)
def test_messages_name_the_line_of_the_key(tmp_path, old, new, message):
    assert old in TEXT
    with pytest.raises(ConfigError, match=message):
        load_profile(saved(tmp_path, TEXT.replace(old, new)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"tiny\.yml is empty; a profile has the keys description, seeds"),
        ("# nothing\n", r"tiny\.yml is empty"),
        ("3", r"tiny\.yml, line 1: 3 is not allowed: a mapping of keys to values belongs here"),
        ("- 1\n- 2", r"tiny\.yml, line 1: \[1, 2\] is not allowed"),
        ("null", r"tiny\.yml, line 1: None is not allowed"),
        ("a: 1\n---\nb: 2", r"tiny\.yml: this is not the YAML of a profile: line 2"),
        ("a: &b [*b]", r"tiny\.yml, line 1: unknown key 'a'"),
        ("[" * 5000, r"tiny\.yml.*: this is not the YAML of a profile"),
        ("a: !!bool maybe", r"tiny\.yml: this is not the YAML of a profile"),
        ("{[1]: 2}", r"tiny\.yml: this is not the YAML of a profile: line 1"),
        ("a: \0", r"tiny\.yml: this is not the YAML of a profile"),
    ],
)
def test_what_is_no_profile_at_all_is_refused(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        load_profile(saved(tmp_path, text))


SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-3, 3), st.floats(), st.text(max_size=3), st.dates())
BROKEN = st.one_of(
    *(SCALARS, st.just([]), st.lists(st.integers(-1, 1), max_size=2), st.dictionaries(st.text(max_size=2), SCALARS)),
    st.sampled_from([10**400, {"steps": 3}, {"n_steps": [[]]}, {3: 4, "a": 5}, "edn"]),
)


def mostly(strategy: st.SearchStrategy, otherwise: st.SearchStrategy = BROKEN) -> st.SearchStrategy:
    """Now and then something else: were it often, no profile would be allowed."""
    return st.sampled_from(range(50)).flatmap(lambda k: otherwise if k == 49 else strategy)


def mappings(values: dict[str, st.SearchStrategy], required: tuple[str, ...] = ()) -> st.SearchStrategy:
    optional = {key: value for key, value in values.items() if key not in required}
    known = st.fixed_dictionaries({key: values[key] for key in required}, optional=optional)
    return mostly(known, st.builds(lambda a, b: a | b, known, st.dictionaries(SCALARS, BROKEN)))


VALUES = {
    "dataset": st.sampled_from(["digits", "fashion_mnist"]),
    "model": st.sampled_from(["edm", "flow_matching", "gaussian"]),
    "scheme": st.sampled_from(["mix", "mix", "fully_synthetic"]),
    "lam": st.floats(0, 9),
    "n_retrain": st.integers(0, 3),
    "n_images_per_retraining": st.integers(0, 3),
    "features": st.sampled_from(["auto", "dinov2"]),
    "model_options": st.sampled_from([{}, {}, {}, {"n_steps": 3}]),
}
RUNS = mappings({key: mostly(value) for key, value in VALUES.items()})
GRIDS = mappings({key: mostly(value | st.lists(value, min_size=1, max_size=2)) for key, value in VALUES.items()})
PROFILES = mappings(
    {
        "description": mostly(st.text()),
        "seeds": mostly(st.lists(mostly(st.integers(0, 5)), min_size=1, max_size=3, unique_by=repr)),
        "run": mostly(RUNS.map(lambda run: {"n_retrain": 1} | run if isinstance(run, dict) else run)),
        "arms": mostly(st.lists(mostly(GRIDS), min_size=1, max_size=2)),
        "chapters": mostly(st.dictionaries(st.text(max_size=3), st.just({}) | st.none(), max_size=2)),
        "resources": mostly(mappings({"threads": mostly(st.integers(1, 3)), "mem_mb": mostly(st.integers(1, 3))})),
    },
    required=("description", "seeds", "run", "arms"),
)


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(profile=mostly(PROFILES))
@example(profile=yaml.safe_load(TEXT))
def test_any_profile_is_planned_whole_or_refused_with_its_name(tmp_path, profile):
    path = saved(tmp_path, yaml.safe_dump(profile, sort_keys=False))
    try:
        loaded = load_profile(path)
    except ConfigError as error:
        event("refused")
        if not str(error).startswith(str(path)):
            raise
        return
    event(f"{len(loaded.runs)} runs")
    before = set()
    for run_id, run in loaded.runs.items():
        assert run_id == run.run_id == run.config.run_id
        assert run.init is None or run.init in before
        before.add(run_id)
    assert len(loaded.arms) % len(profile["seeds"]) == 0


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text() | st.text(alphabet="[]{}:-,&*!?|>'\"% \n#ab0.", max_size=30))
def test_any_text_is_refused_with_the_name_of_the_file(tmp_path, text):
    path = tmp_path / "tiny.yml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(ConfigError, match=r"tiny\.yml"):
        load_profile(path)
