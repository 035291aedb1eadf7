"""The search distribution improves what it is given, and a restored one never notices."""

import io

import numpy as np
import pytest

from utils.evolution.cma_es import Evolution

N = 100


def make(n=N, population=8, seed=0):
    return Evolution(np.zeros(n), 0.1, population, seed)


def score(candidates):
    """A hill whose sides differ 100-fold in steepness; its top, 0, is where every weight is 1."""
    steepness = np.logspace(0, 2, candidates.shape[1])
    return -((candidates - 1) ** 2 * steepness).sum(axis=1)


def climb(evolution, generations, score=score):
    """Everything the evolution shows on the way, a tuple of arrays each generation."""
    trace = []
    for _ in range(generations):
        candidates = evolution.ask()
        evolution.tell(candidates, score(candidates))
        trace.append((candidates, evolution.mean, np.array(evolution.sigma)))
    return trace


def same(trace, other):
    return len(trace) == len(other) and all(
        np.array_equal(a, b)
        for left, right in zip(trace, other, strict=True)
        for a, b in zip(left, right, strict=True)
    )


def through_a_file(evolution):
    file = io.BytesIO()
    np.savez(file, **evolution.state())
    file.seek(0)
    with np.load(file, allow_pickle=False) as state:
        return Evolution.from_state(state)


@pytest.mark.parametrize("first", [0, 1, 2, 5])
def test_a_restored_run_is_the_unbroken_run_to_the_bit(first):
    unbroken = climb(make(), 12)
    broken = make()
    trace = climb(broken, first)
    restored = through_a_file(broken)
    assert restored.generation == first
    assert same(trace + climb(restored, 12 - first), unbroken)


def test_a_run_restored_after_every_generation_is_the_unbroken_run():
    evolution, trace = make(), []
    for _ in range(12):
        trace += climb(evolution, 1)
        evolution = through_a_file(evolution)
    assert same(trace, climb(make(), 12))


def test_a_state_taken_between_ask_and_tell_asks_for_the_same_candidates():
    unbroken = climb(make(), 12)
    broken = make()
    trace = climb(broken, 5)
    broken.ask()
    assert same(trace + climb(through_a_file(broken), 7), unbroken)


def test_the_memory_layout_of_a_state_does_not_matter():
    evolution = make()
    climb(evolution, 6)
    relaid = {name: np.array(value, order="C") for name, value in evolution.state().items()}
    assert same(climb(Evolution.from_state(relaid), 6), climb(evolution, 6))


def test_a_state_is_a_snapshot():
    evolution = make()
    climb(evolution, 4)
    state = evolution.state()
    after = climb(evolution, 4)
    for _ in range(2):  # neither the run it came from nor the runs it starts may change it
        assert same(climb(Evolution.from_state(state), 4), after)


def test_restoring_a_state_gives_that_state():
    evolution = make()
    climb(evolution, 4)
    state, again = evolution.state(), Evolution.from_state(evolution.state()).state()
    assert state.keys() == again.keys()
    assert all(np.array_equal(state[name], again[name]) for name in state)
    assert all(value.dtype.kind in "fib" for value in state.values())


def test_a_state_of_a_real_controller_is_small():
    assert sum(value.nbytes for value in make(867, 48).state().values()) < 1e6


@pytest.mark.parametrize(
    "landscape",
    [
        lambda x: x[:, 0],  # without a top, so that sigma grows without end
        lambda x: -((x - 1) ** 2 * np.logspace(0, 11, 6)).sum(axis=1),  # steeper by 11 magnitudes
    ],
    ids=["endless", "needle"],
)
def test_extremes_where_cma_would_rescale_itself_are_restored_too(landscape):
    evolution = make(6, 12)
    climb(evolution, 400, landscape)
    restored = through_a_file(evolution)
    assert same(climb(restored, 10, landscape), climb(evolution, 10, landscape))


def test_it_climbs():
    evolution = make(20, 16)
    climb(evolution, 400)
    assert np.abs(evolution.mean - 1).max() < 0.01
    assert evolution.sigma < 0.05
    assert evolution.generation == 400


def test_it_learns_the_steepness_of_every_coordinate():
    evolution = make(20, 16)
    climb(evolution, 400)
    deviations = evolution.state()["deviations"]
    assert deviations[:5].mean() > 2 * deviations[-5:].mean()


def test_only_the_order_of_fitness_matters():
    assert same(climb(make(), 6), climb(make(), 6, lambda x: np.arctan(score(x) / 1e4)))


def test_noise_is_survived():
    noise = np.random.default_rng(1)
    evolution = make(20, 16)
    climb(evolution, 400, lambda x: score(x) + noise.normal(0, 20, len(x)))
    assert score(evolution.mean[None])[0] > 0.1 * score(np.zeros((1, 20)))[0]


def test_mirrored_candidates_come_in_opposite_pairs():
    evolution = make(5, 9)
    steps = evolution.ask() - evolution.mean
    np.testing.assert_allclose(steps[:4], -steps[5:], atol=1e-15)


def test_candidates_have_the_mean_and_deviation_asked_for():
    candidates = Evolution(np.full(50, 3.0), 0.2, 200, 1).ask()
    assert candidates.shape == (200, 50)
    assert candidates.dtype == np.float64
    assert candidates.mean() == pytest.approx(3, abs=0.02)
    assert candidates.std() == pytest.approx(0.2, rel=0.05)


@pytest.mark.parametrize("limits", [(0, 0.01), (0.5, 1)])
def test_a_limited_sigma_draws_the_next_candidates_and_survives_a_restart(limits):
    evolution = make(population=100)
    climb(evolution, 3)
    drawn = (evolution.ask(*limits) - evolution.mean).std()
    assert evolution.sigma in limits
    assert drawn == pytest.approx(evolution.sigma, rel=0.1)
    restored = through_a_file(evolution)
    assert same(climb(restored, 3), climb(evolution, 3))


def test_limits_around_sigma_change_nothing():
    limited = make()
    limited.ask(1e-9, 1e9)
    assert same(climb(limited, 3), climb(make(), 3))


@pytest.mark.parametrize("limits", [(0, 0.01), (0.5, 1)])
def test_candidates_that_are_drawn_keep_their_sigma(limits):
    evolution = make()
    drawn = evolution.ask()
    assert np.array_equal(evolution.ask(*limits), drawn)
    assert evolution.sigma == 0.1


def test_pairs_are_mirror_images_in_every_generation():
    evolution = make(population=10)
    for _ in range(3):
        steps = evolution.ask() - evolution.mean
        first, second = evolution.pairs.T
        np.testing.assert_allclose(steps[first], -steps[second], atol=1e-12)
        assert sorted([*first, *second]) == list(range(10))
        climb(evolution, 1)


def test_an_odd_population_does_not_come_in_pairs():
    with pytest.raises(ValueError, match="pairs"):
        _ = make(population=7).pairs


def test_another_population_is_drawn_from_the_same_distribution():
    evolution = make(population=8)
    climb(evolution, 3)
    more = evolution.resized(400)
    assert (len(more.ask()), more.generation) == (400, 3)
    assert more.ask().mean(0) == pytest.approx(evolution.mean)
    assert (more.ask() - more.mean).std() == pytest.approx(evolution.sigma, rel=0.1)
    assert same(climb(evolution.resized(8), 3), climb(evolution, 3))


def test_mean_rate_scales_the_step():
    half, whole, long = make(), make(), make()
    for evolution, share in (half, 0.5), (whole, 1.0), (long, 4.0):
        evolution.tell(candidates := evolution.ask(), score(candidates), share)
    np.testing.assert_allclose(half.mean, whole.mean / 2)
    np.testing.assert_allclose(long.mean, whole.mean * 4)


@pytest.mark.parametrize("share", [0.0, 10.5, np.nan])
def test_a_mean_rate_out_of_range_is_named(share):
    evolution = make()
    with pytest.raises(ValueError, match="mean_rate"):
        evolution.tell(candidates := evolution.ask(), score(candidates), share)
    assert evolution.generation == 0


def test_the_seed_decides_the_run():
    assert same(climb(make(seed=0), 4), climb(make(seed=0), 4))
    assert not np.isclose(make(seed=0).ask(), make(seed=1).ask()).any()


def test_every_generation_draws_new_numbers():
    trace = climb(make(), 2)
    assert not np.isclose(trace[0][0], trace[1][0]).any()


def test_the_global_generator_is_neither_used_nor_disturbed():
    quiet = climb(make(), 8)
    evolution, trace = make(), []
    for seed in range(8):
        np.random.seed(seed)
        before = np.random.get_state()[1].copy(), np.random.get_state()[2]
        trace += climb(evolution, 1)
        after = np.random.get_state()[1:3]
        assert np.array_equal(before[0], after[0])
        assert before[1] == after[1]
    assert same(trace, quiet)


def test_asking_again_changes_nothing():
    evolution = make()
    first = evolution.ask()
    first_copy = first.copy()
    first[:] = 7  # the caller's own array, to do with as he likes
    assert np.array_equal(evolution.ask(), first_copy)


def test_the_mean_handed_out_is_a_copy():
    evolution = make()
    evolution.mean[:] = 7
    assert (evolution.mean == 0).all()


def test_equal_fitness_keeps_sigma():
    evolution = make(20, 16)
    climb(evolution, 50, lambda x: np.zeros(len(x)))
    assert evolution.sigma == pytest.approx(0.1)
    assert np.abs(evolution.mean).max() < 1


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_fitness_that_is_not_finite_is_refused_and_can_be_told_again(bad):
    evolution, untroubled = make(), make()
    candidates = evolution.ask()
    scores = score(candidates)
    scores[3] = bad
    with pytest.raises(ValueError, match="finite"):
        evolution.tell(candidates, scores)
    assert evolution.generation == 0
    assert same(climb(evolution, 3), climb(untroubled, 3))


def test_candidates_and_fitness_that_do_not_belong_together_are_refused():
    evolution = make()
    candidates = evolution.ask()
    scores = score(candidates)
    with pytest.raises(ValueError, match="not the ones asked for"):
        evolution.tell(candidates[::-1], scores)
    with pytest.raises(ValueError, match="not the ones asked for"):
        evolution.tell(candidates.astype(np.float32), scores)
    with pytest.raises(ValueError, match="shape"):
        evolution.tell(candidates, scores[:-1])
    evolution.tell(candidates, scores)
    with pytest.raises(ValueError, match="not the ones asked for"):
        evolution.tell(candidates, scores)


@pytest.mark.filterwarnings("ignore:mean_shift_samples")  # cma notices it too
def test_a_search_at_the_end_of_float64_says_so():
    evolution = Evolution(np.full(4, 1e6), 1e-300, 8, 0)
    with pytest.raises(FloatingPointError, match="sigma"):
        climb(evolution, 20)


@pytest.mark.filterwarnings("error")
def test_it_prints_warns_and_writes_nothing(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cma_signals.in").write_text("{'timeout': 0}")  # cma would obey such a file
    evolution = make(20, 16)
    climb(evolution, 30)
    climb(through_a_file(evolution), 30)
    assert [path.name for path in tmp_path.iterdir()] == ["cma_signals.in"]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "arguments",
    [
        {"mean": np.zeros((3, 3))},
        {"mean": [0.0]},
        {"mean": [0.0, np.nan]},
        {"sigma": 0.0},
        {"sigma": -1.0},
        {"sigma": np.nan},
        {"sigma": np.inf},
        {"population": 5},
        {"seed": -1},
    ],
    ids=str,
)
def test_an_argument_out_of_range_is_named(arguments):
    settings = {"mean": np.zeros(4), "sigma": 0.1, "population": 8, "seed": 0} | arguments
    with pytest.raises(ValueError, match=next(iter(arguments))):
        Evolution(**settings)


def test_a_state_that_lacks_any_of_its_parts_is_refused():
    state = make(5).state()
    for name in state:
        part = {key: value for key, value in state.items() if key != name}
        with pytest.raises(ValueError, match=name):
            Evolution.from_state(part)


def test_a_state_with_a_part_of_another_shape_or_type_or_not_finite_is_refused():
    evolution = make(5)
    climb(evolution, 3)
    state = evolution.state()
    for name, value in state.items():
        worse = [np.stack([value, value]), value.astype(str), value.astype(object)]
        if value.dtype == np.float64:
            worse += [
                np.full_like(value, np.nan),
                np.full_like(value, np.inf),
                value.astype(np.float32),
            ]
        if value.ndim:
            worse.append(value[:-1])
        for bad in worse:
            with pytest.raises(ValueError, match="malformed state"):
                Evolution.from_state(state | {name: bad})


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("sigma", np.array(-0.1)),
        ("sigma", np.array(0.0)),
        ("deviations", -np.ones(5)),
        ("generation", np.array(-1)),
        ("population", np.array(1)),
        ("seed", np.array(-1)),
    ],
)
def test_a_state_with_an_impossible_value_is_refused(name, bad):
    evolution = make(5)
    climb(evolution, 3)
    with pytest.raises(ValueError, match=name):
        Evolution.from_state(evolution.state() | {name: bad})
