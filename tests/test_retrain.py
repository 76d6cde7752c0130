import numpy as np
import pytest

from iterative_retraining.config import RunConfig
from iterative_retraining.errors import NonFiniteLossError
from iterative_retraining.models.gaussian import Gaussian
from iterative_retraining.retrain import GenerationRecord, retrain
from iterative_retraining.runs.directory import Run
from iterative_retraining.runs.memory import MemoryRun
from iterative_retraining.schemes import Accumulate, FullySynthetic, Mix
from iterative_retraining.seeding import stage_seed
from iterative_retraining.training_set import TrainingSet

from conftest import untimed

REAL = np.random.default_rng(0).normal(size=(40, 2))


class Recorder(Gaussian):
    """A Gaussian that remembers what it was asked."""

    def __init__(self):
        super().__init__()
        self.fits, self.samples = [], []

    def fit(self, data, *, seed, progress=None):
        self.fits.append((data.array(), seed))
        return super().fit(data, seed=seed, progress=progress)

    def sample(self, n, *, seed):
        x = super().sample(n, seed=seed)
        self.samples.append((x, seed))
        return x


def mean_error(generated, *, real):
    return {"mean_error": float(np.linalg.norm(generated.mean(axis=0) - real.mean(axis=0)))}


def test_it_is_algorithm_1():
    model = Recorder()
    records = list(retrain(model, REAL, Mix(0.55), [mean_error], n_retrain=3, seed=7))
    assert [r.generation for r in records] == [0, 1, 2, 3]
    assert [(r.n_real, r.n_synthetic) for r in records] == [(40, 0), (40, 22), (40, 22), (40, 22)]
    drawn = [x for x, seed in model.samples if seed != stage_seed(7, 0, "preview")]
    np.testing.assert_array_equal(model.fits[0][0], REAL)
    for t in (1, 2, 3):
        np.testing.assert_array_equal(model.fits[t][0], np.concatenate([REAL, drawn[t - 1][:22]]))
        assert records[t].metrics == mean_error(drawn[t][:40], real=REAL)


def test_every_stage_has_its_own_seed():
    model = Recorder()
    list(retrain(model, REAL, FullySynthetic(), [], n_retrain=3, seed=7))
    preview = stage_seed(7, 0, "preview")
    seeds = [s for _, s in model.fits] + [s for _, s in model.samples if s != preview]
    assert len(set(seeds)) == 8
    assert [s for _, s in model.samples].count(preview) == 4


def test_more_samples_than_data_are_drawn_when_lam_asks_for_them():
    records = list(retrain(Gaussian(), REAL, Mix(2.5), [], n_retrain=1, seed=0))
    assert records[1].n_synthetic == 100


def test_initial_state_replaces_the_first_fit():
    state = Gaussian(np.full(2, 9.0), np.eye(2)).state_dict()
    model = Recorder()
    records = list(retrain(model, REAL, FullySynthetic(), [], n_retrain=1, seed=0, initial_state=state))
    assert records[0].n_images == 0
    assert len(model.fits) == 1
    assert model.fits[0][0].mean() > 7


@pytest.mark.parametrize("scheme", [FullySynthetic(), Mix(0.5), Accumulate()])
@pytest.mark.parametrize("fixed_latents", [False, True])
def test_samples_of_theta_0_that_are_there_are_not_drawn_again(scheme, fixed_latents, tmp_path):
    real = np.random.default_rng(0).integers(0, 256, (40, 2, 2, 1), dtype=np.uint8)
    first = MemoryRun()
    next(retrain(Gaussian(), real, Mix(2.0), [], n_retrain=0, seed=3, run=first))  # 80 samples, of which 40 are needed
    same = {"n_retrain": 2, "seed": 3, "fixed_latents": fixed_latents, "initial_state": first.load_state()}
    ledgers, drawn = [], []
    for given in (None, first.history[0]):
        config = RunConfig(model="gaussian", scheme=scheme.name)
        model, run = Recorder(), Run(tmp_path / str(len(drawn)), config)
        list(retrain(model, real, scheme, [], run=run, initial_samples=given, **same))
        run.close()
        ledgers.append(untimed(run.path / "ledger.jsonl"))
        drawn.append(len(model.samples))
    assert ledgers[0] == ledgers[1]  # the digests of weights and samples with them
    assert drawn == [6, 5]  # samples and previews


def test_too_few_samples_of_theta_0_are_drawn_anew_and_samples_of_no_state_refused():
    first = MemoryRun()
    next(retrain(Gaussian(), REAL, Mix(1.0), [], n_retrain=0, seed=3, run=first))
    model, run = Recorder(), MemoryRun()
    both = {"initial_state": first.load_state(), "initial_samples": first.history[0]}
    list(retrain(model, REAL, Mix(2.5), [], n_retrain=1, seed=3, run=run, **both))
    assert len(model.samples) == 4
    np.testing.assert_array_equal(run.history[0][:40], first.history[0])
    with pytest.raises(ValueError, match="initial_samples are of initial_state, which is not given"):
        next(retrain(Gaussian(), REAL, Mix(1.0), [], n_retrain=1, seed=3, initial_samples=first.history[0]))


def test_arms_of_one_seed_share_generation_zero_to_the_bit():
    rows = [
        next(iter(retrain(Gaussian(), REAL, s, [mean_error], n_retrain=1, seed=3)))
        for s in (Mix(0.0), FullySynthetic())
    ]
    assert rows[0].metrics == rows[1].metrics


def test_fully_synthetic_collapses_and_a_mix_does_not():
    spread = {}
    for name, scheme in (("synthetic", FullySynthetic()), ("mix", Mix(1.0))):
        model = Gaussian()
        for _ in retrain(model, REAL, scheme, [], n_retrain=400, seed=0):
            pass
        spread[name] = np.sqrt(np.trace(model.cov))
    assert spread["synthetic"] < 0.3 < 1 < spread["mix"] < 2


def test_progress_sees_generation_and_images():
    seen = []
    list(retrain(Gaussian(), REAL, Mix(0.5), [], n_retrain=1, seed=0, progress=lambda *call: seen.append(call)))
    assert seen == [(0, 40, 40), (1, 60, 60)]


def test_records_round_trip_through_rows():
    record = next(iter(retrain(Gaussian(), REAL, Mix(0.5), [mean_error], n_retrain=0, seed=0)))
    row = record.row()
    assert set(row) >= {"generation", "n_images", "mean_error", "seconds_fit", "seconds_sample", "seconds_metrics"}
    assert GenerationRecord.from_row(row | {"checkpoint_sha256": "x"}) == record


def test_negative_n_retrain_is_refused():
    with pytest.raises(ValueError, match="n_retrain = -1 is not allowed"):
        list(retrain(Gaussian(), REAL, Mix(0.5), [], n_retrain=-1, seed=0))


def test_a_non_finite_loss_names_its_generation():
    class Breaks(Gaussian):
        def fit(self, data: TrainingSet, *, seed, progress=None):
            if self.mean is not None:
                raise NonFiniteLossError("the loss is nan at step 3")
            return super().fit(data, seed=seed, progress=progress)

    with pytest.raises(NonFiniteLossError, match=r"generation 1: the loss is nan at step 3; the 1 generations before"):
        list(retrain(Breaks(), REAL, Mix(0.5), [], n_retrain=3, seed=0))
