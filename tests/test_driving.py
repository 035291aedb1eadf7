"""The decision loop against a plain one, and scores that do not depend on the company."""

import math

import numpy as np
import pytest
import tiny
import torch

import models.inference
from models.controller import pack, squash, unpack
from models.inference import ROWS
from models.mdn_rnn import expected_next
from utils.drivers.autopilot import Autopilot
from utils.drivers.registry import DRIVERS
from utils.racing.agent import TRUST, Agent, Races, racing_workers
from utils.racing.driver_races import DriverRaces
from utils.racing.race import FRAME_COST, Race, RunningRace
from utils.simulator.envs import FAST_ID, MAX_FRAMES, STOCK_ID, make_env, shrink
from utils.world_model.episodes import record

TEACHER = {"line_offset": 0.0, "grip": 0.9}
STANDING_STILL = pack(np.zeros((3, tiny.FEATURES)), np.array([0.0, -20.0, -20.0]))
CIRCLING = pack(np.zeros((3, tiny.FEATURES)), np.array([0.3, -0.8, -20.0]))


def drive(races, order=None, env_id=FAST_ID):
    """Drive races in one handler, started in the given order; laps in the order of `races`."""
    handler = Races(env_id, *tiny.networks())
    waiting = list(order if order is not None else range(len(races)))
    laps = [None] * len(races)
    running = 0
    while waiting or running:
        while waiting and running < ROWS:
            number = waiting.pop(0)
            handler.start(number, races[number])
            running += 1
        for number, lap in handler.advance():
            laps[number] = lap
            running -= 1
    return laps


def facts(lap):
    """What came of a lap, and with a trace where the car was in every frame, to the last bit."""
    way = None if lap.positions is None else lap.positions.tobytes()
    return lap.seed, lap.score, lap.frames, lap.tiles, lap.total_tiles, lap.complete, way


def mixed_races(count=ROWS + 2):
    """Short races of different lengths, each with a C of its own that steers by what it sees."""
    return [
        Race(100 + i, tiny.lively(i), patience=20 + 5 * (i % 4), trace=True) for i in range(count)
    ]


@pytest.fixture(scope="module")
def reference():
    """Of every race in `mixed_races`, the lap that it is alone."""
    return [facts(drive([race])[0]) for race in mixed_races()]


# The same seeds, the same scores


def test_the_races_differ(reference):
    """Otherwise the tests below would compare little."""
    assert len({score for _, score, *_ in reference}) == len(reference)
    assert len({frames for _, _, frames, *_ in reference}) > ROWS / 2


def test_company_and_order_do_not_matter(reference):
    races = mixed_races()
    assert [facts(lap) for lap in drive(races)] == reference
    order = np.random.default_rng(0).permutation(len(races))
    assert [facts(lap) for lap in drive(races, order)] == reference


def test_a_handler_forgets_the_races_before():
    race = mixed_races()[3]
    first, *_, last = drive([race, *mixed_races(ROWS + 3), race])
    assert facts(first) == facts(last)


@pytest.mark.parametrize(("workers", "threads"), [
    (0, 1), pytest.param(0, 2, marks=pytest.mark.slow), (1, 1), (2, 1),
])  # fmt: skip
def test_the_number_of_workers_does_not_matter(reference, workers, threads):
    vae, rnn = tiny.networks()
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with racing_workers(workers, FAST_ID, vae, rnn) as pool:
            found = pool.run(mixed_races()[::-1])
    finally:
        torch.set_num_threads(before)
    assert [facts(lap) for lap in found[::-1]] == reference


def test_between_two_looks_z_stays_as_it_was():
    seldom, always = (Agent(*tiny.networks()) for _ in range(2))
    for row, every in enumerate((1, 2, 3)):
        seldom.begin(row, tiny.lively(row), look_every=every)
        always.begin(row, tiny.lively(row))
    rng = np.random.default_rng(0)
    seen, kept = [], []
    for _ in range(7):
        seldom.frames[:] = always.frames[:] = rng.integers(0, 256, always.frames.shape)
        for agent, rows in ((always, seen), (seldom, kept)):
            agent.remember(agent.decide())
            rows.append(agent.features[:3, : tiny.LATENT_DIM].copy())
    for t, rows in enumerate(kept):
        for row, every in enumerate((1, 2, 3)):
            assert np.array_equal(rows[row], seen[t - t % every][row])
    assert not np.array_equal(seen[0], seen[1])


@torch.inference_mode()
def test_between_two_looks_z_goes_on_as_m_expects():
    vae, rnn = tiny.networks()
    dreaming, holding, always = (Agent(vae, rnn) for _ in range(3))
    for row, every in enumerate((1, 2, 3, 3)):
        dreaming.begin(row, tiny.lively(row), every, "hold" if row == 3 else "dream")
        holding.begin(row, tiny.lively(row), every)
        always.begin(row, tiny.lively(row))
    rng = np.random.default_rng(0)
    z, states = [None] * 3, [None] * 3
    expected = [None] * 3
    for t in range(7):
        frames = rng.integers(0, 256, always.frames.shape)
        dreaming.frames[:] = holding.frames[:] = always.frames[:] = frames
        actions, held, _ = (agent.decide() for agent in (dreaming, holding, always))
        for row, every in enumerate((1, 2, 3)):
            seen = torch.from_numpy(always.features[row, : tiny.LATENT_DIM].copy())
            z[row] = seen if t % every == 0 else z[row] + TRUST * (expected[row] - z[row])
            h = states[row][0].flatten() if t else torch.zeros(tiny.HIDDEN)
            features = torch.from_numpy(dreaming.features[row])
            torch.testing.assert_close(features, torch.cat([z[row], h]))
            action = torch.from_numpy(actions[row])
            prediction, states[row] = rnn(z[row][None, None], action[None, None], states[row])
            expected[row] = expected_next(prediction)[0, 0]
        for row in (0, 3):  # who always looks, and who holds, in the company of dreamers
            assert np.array_equal(dreaming.features[row], holding.features[row])
        assert not t or not np.array_equal(dreaming.features[2], holding.features[2])
        for agent, done in ((dreaming, actions), (holding, held), (always, held)):
            agent.remember(done)


def test_who_always_looks_has_nothing_to_dream(monkeypatch):
    monkeypatch.setattr(Agent, "_imagined", None)
    race = mixed_races()[0]
    dreaming, holding = drive([race._replace(blind="dream"), race._replace(look_every=3)])
    assert facts(dreaming) == facts(drive([race])[0])
    assert facts(dreaming) != facts(holding)


def test_a_race_may_dream_between_looks():
    race = mixed_races()[0]._replace(look_every=3)
    holding, dreaming = drive([race, race._replace(blind="dream")])
    assert facts(holding) == facts(drive([race])[0])
    assert facts(dreaming) == facts(drive([race._replace(blind="dream")])[0])
    assert facts(holding) != facts(dreaming)


def test_a_race_may_look_less_often():
    race = mixed_races()[0]
    always, seldom = drive([race, race._replace(look_every=3)])
    assert facts(always) == facts(drive([race._replace(look_every=1)])[0])
    assert facts(always) != facts(seldom)


# Against a plain loop


def plain_race(seed, parameters, frames):
    """One race by the book: one environment, the networks in float32, the LSTM's equations.

    Returns the positions of the car and the rewards.
    """
    vae, rnn = tiny.networks()
    cell = torch.nn.LSTMCell(tiny.LATENT_DIM + 3, tiny.HIDDEN)
    cell.load_state_dict(
        {name.removesuffix("_l0"): tensor for name, tensor in rnn.lstm.state_dict().items()}
    )
    weights, bias = unpack(parameters.astype(float))
    h = c = torch.zeros(1, tiny.HIDDEN)
    env = make_env(FAST_ID)
    obs, _ = env.reset(seed=seed)
    positions, rewards = [], []
    with torch.no_grad():
        for _ in range(frames):
            z, _ = vae.encode(torch.from_numpy(shrink(obs))[None])
            features = torch.cat([z, h], 1)[0].double().numpy()
            steering, gas, brake = np.tanh(weights @ features + bias)
            action = np.array([steering, (gas + 1) / 2, max(brake, 0.0)], np.float32)
            h, c = cell(torch.cat([z, torch.from_numpy(action)[None]], 1), (h, c))
            obs, reward, terminated, _, _ = env.step(action)
            positions.append(tuple(env.unwrapped.car.hull.position))
            rewards.append(float(reward))
            if terminated:
                break
    return np.array(positions), rewards


@pytest.mark.parametrize("number", [0, 1, 2])
def test_the_loop_is_the_plain_one(monkeypatch, number):
    monkeypatch.setattr(models.inference, "arithmetic", lambda: "float32")
    race = Race(100 + number, tiny.lively(number), patience=40, trace=True)
    (lap,) = drive([race])
    positions, rewards = plain_race(race.seed, race.parameters, lap.frames)
    assert np.abs(lap.positions - positions).max() < 0.1  # of units; a lap is 1000 long
    charged = FRAME_COST * (MAX_FRAMES - lap.frames)
    assert lap.score == pytest.approx(sum(rewards) - charged, abs=0.01)
    assert np.ptp(positions, axis=0).max() > 10


def test_the_processors_own_arithmetic_drives_nearly_alike():
    race = Race(100, tiny.lively(0), patience=40, trace=True)
    (lap,) = drive([race])
    positions, _ = plain_race(race.seed, race.parameters, lap.frames)
    assert np.abs(lap.positions - positions)[:50].max() < 1


def test_a_controller_that_is_blind_scores_what_its_action_scores():
    (lap,) = drive([Race(6, tiny.STRAIGHT_ON, trace=True)])
    env, way = make_env(FAST_ID), []
    env.reset(seed=6)
    score, frames, over = 0.0, 0, False
    while not over:
        _, reward, terminated, truncated, info = env.step(tiny.STRAIGHT_ON_ACTION)
        score, frames, over = score + float(reward), frames + 1, terminated or truncated
        way.append(tuple(env.unwrapped.car.hull.position))
    car_env = env.unwrapped
    assert facts(lap) == (
        6, score, frames, car_env.tile_visited_count, len(car_env.track), info["lap_finished"],
        np.array(way).tobytes(),
    )  # fmt: skip
    assert lap.complete is False
    assert lap.missed == [tile.idx for tile in car_env.road if not tile.road_visited]
    assert np.array_equal(lap.track, [point[2:4] for point in car_env.track])


def test_our_environment_and_stock_give_the_same_race():
    races = [Race(6, tiny.STRAIGHT_ON, trace=True), Race(7, CIRCLING, patience=120, trace=True)]
    ours, stock = drive(races), drive(races, env_id=STOCK_ID)
    for lap, other in zip(ours, stock, strict=True):
        assert facts(lap) == facts(other)
        assert lap.missed == other.missed


# Patience


def test_a_race_given_up_is_charged_the_frames_not_driven():
    patient, short = drive([
        Race(8, STANDING_STILL), Race(8, STANDING_STILL, patience=30)
    ])  # fmt: skip
    assert patient.frames == MAX_FRAMES
    assert short.frames == 30
    assert short.tiles == patient.tiles
    assert short.score == pytest.approx(patient.score, abs=1e-3)


def test_patience_counts_from_the_last_new_tile():
    # It leaves the road straight on and never finds another tile.
    whole, short = drive([
        Race(9, tiny.STRAIGHT_ON, trace=True), Race(9, tiny.STRAIGHT_ON, patience=25)
    ])  # fmt: skip
    env = make_env(FAST_ID)
    env.reset(seed=9)
    tiles, last = env.unwrapped.tile_visited_count, 0
    for t in range(1, whole.frames):
        env.step(tiny.STRAIGHT_ON_ACTION)
        if env.unwrapped.tile_visited_count > tiles:
            tiles, last = env.unwrapped.tile_visited_count, t
    assert short.frames == last + 25
    assert short.progress_frames == whole.progress_frames == last
    assert short.tiles == tiles == whole.tiles


@pytest.mark.parametrize("env_id", [FAST_ID, STOCK_ID])
def test_wheels_on_the_grass_count_up_to_the_last_new_tile(env_id):
    env = make_env(FAST_ID)
    env.reset(seed=7)
    car_env, tiles, grass, expected = env.unwrapped, 2, 0, 0
    (lap,) = drive([Race(7, CIRCLING, patience=120)], env_id=env_id)
    for _ in range(lap.frames):
        env.step(squash(unpack(CIRCLING)[1]))
        grass += [len(wheel.tiles) for wheel in car_env.car.wheels].count(0)
        if car_env.tile_visited_count > tiles:
            tiles, expected = car_env.tile_visited_count, grass
    assert lap.grass == expected
    assert 0 < expected < grass


# Teachers


@pytest.fixture(scope="module")
def taught():
    """A lap in which the student drives, and one in which the teacher does."""
    student = Race(3, tiny.lively(1), patience=40, teacher=TEACHER)
    return drive([student, student._replace(teacher_share=1.0)])


def test_features_and_advice_belong_to_every_frame(taught):
    for lap in taught:
        assert lap.features.shape == (lap.frames, tiny.FEATURES)
        assert lap.advice.shape == (lap.frames, 3)
        assert lap.features.dtype == lap.advice.dtype == np.float32
        assert np.array_equal(lap.features[0, tiny.LATENT_DIM :], np.zeros(tiny.HIDDEN))
        assert np.abs(lap.features[1, tiny.LATENT_DIM :]).max() > 0
        assert np.ptp(lap.features, axis=0).min() > 0
        assert (lap.advice >= (-1, 0, 0)).all()
        assert (lap.advice <= 1).all()


def test_advice_is_for_the_very_frame_in_which_the_student_acts(taught):
    """The student's actions follow from the features; replayed, the autopilot says the same."""
    lap, _ = taught
    weights, bias = unpack(tiny.lively(1))
    env = make_env(FAST_ID)
    env.reset(seed=3)
    teacher = Autopilot(env, np.random.default_rng(3), **TEACHER)
    score = 0.0
    for features, advice in zip(lap.features, lap.advice, strict=True):
        assert np.allclose(teacher.advise(), advice, atol=1e-3)
        _, reward, *_ = env.step(squash(weights @ features + bias))
        score += float(reward)
    assert lap.score == pytest.approx(score - FRAME_COST * (MAX_FRAMES - lap.frames), abs=0.01)


def test_a_teacher_at_the_wheel_drives_as_it_advises(taught):
    _, lap = taught
    env = make_env(FAST_ID)
    env.reset(seed=3)
    score = 0.0
    for action in lap.advice:
        _, reward, *_ = env.step(action)
        score += float(reward)
    assert env.unwrapped.tile_visited_count == lap.tiles
    assert lap.score == score - (0 if lap.complete else FRAME_COST * (MAX_FRAMES - lap.frames))
    assert lap.tiles > taught[0].tiles


def test_a_shared_wheel_changes_hands_by_stretches_and_the_same_way_each_time(monkeypatch):
    at_the_wheel = []  # in every frame, the teacher or not

    def consult(running, teacher, action, features):
        taken = plain(running, teacher, action, features)
        at_the_wheel.append(taken is not action)
        return taken

    race = Race(3, STANDING_STILL, patience=150, teacher=TEACHER, teacher_share=0.5)
    plain = RunningRace._consult
    with monkeypatch.context() as patch:
        patch.setattr(RunningRace, "_consult", consult)
        drive([race])
    changes = np.flatnonzero(np.diff(at_the_wheel)) + 1
    assert len(changes) > 1
    assert (changes % 50 == 0).all()
    lap, again = drive([race, race])
    assert facts(lap) == facts(again)
    assert np.array_equal(lap.advice, again.advice)
    idle, taught = drive([race._replace(teacher_share=0.0), race._replace(teacher_share=1.0)])
    assert idle.tiles < lap.tiles
    assert facts(lap) != facts(taught)


def test_a_race_without_a_teacher_or_trace_carries_no_load():
    (lap,) = drive([Race(8, STANDING_STILL, patience=5)])
    assert (lap.features, lap.advice, lap.positions, lap.track, lap.missed) == (None,) * 5


# Other drivers


def test_the_autopilot_finishes_a_lap():
    lap = DriverRaces("autopilot", TEACHER, FAST_ID)(Race(3, np.zeros(0), trace=True))
    assert lap.complete is True
    assert lap.tiles == lap.total_tiles
    assert lap.missed == []
    assert lap.score == pytest.approx(1000 - FRAME_COST * lap.frames, abs=1e-6)
    assert math.dist(lap.positions[0], lap.track[0]) < 10


def test_a_driver_races_the_same_track_alike_each_time():
    races = DriverRaces("random", {}, FAST_ID)
    first, other, again = (races(Race(seed, np.zeros(0))) for seed in (4, 5, 4))
    assert facts(first) == facts(again)
    assert facts(first)[1:] != facts(other)[1:]


def test_a_new_driver_is_a_line_in_the_registry(monkeypatch):
    class Idle:
        def __init__(self, env, rng):
            pass

        def act(self, obs):
            return np.zeros(3, np.float32)

    monkeypatch.setitem(DRIVERS, "idle", Idle)
    assert DriverRaces("idle", {}, FAST_ID)(Race(8, np.zeros(0), patience=5)).frames == 5


@pytest.mark.parametrize("env_id", [STOCK_ID, FAST_ID])
def test_drivers_see_what_v_sees_wherever_they_drive(monkeypatch, env_id):
    class Looking:
        def __init__(self, env, rng):
            pass

        def act(self, obs):
            seen.append(obs.copy())
            return np.zeros(3, np.float32) if len(seen) < 3 else None

    seen = []
    monkeypatch.setitem(DRIVERS, "looking", Looking)
    DriverRaces("looking", {}, env_id)(Race(8, np.zeros(0), patience=2))
    raced, seen[:] = list(seen), []
    env = make_env(env_id)
    episode = record(env, Looking(env, None), env.reset(seed=8)[0])
    assert len(episode.action) == 2
    assert np.array_equal(seen, episode.obs)
    assert np.array_equal(raced, episode.obs[:2])
