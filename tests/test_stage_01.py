"""Stage 01 on small settings: which episodes it collects, and what their files hold."""

import contextlib
import importlib.metadata
import shutil

import numpy as np
import pytest
import tiny
from stages import (
    EPISODES,
    FLAGS,
    contents,
    expect_the_end,
    picture,
    read_log,
    replace_m,
)

from utils.evolution.cma_es import Evolution
from utils.evolution.own_drives import PATIENCE
from utils.racing.agent import Races
from utils.racing.race import Race
from utils.runtime.errors import UserError
from utils.simulator.envs import DREAM_ID, FAST_ID, make_env, shrink
from utils.storage.artifacts import fingerprint, load_arrays, load_header, save_arrays
from utils.storage.networks import load_agent, rnn_path
from utils.world_model.episodes import load_rollout


def test_01_records_whole_episodes_with_who_drove_and_where(finished):
    folder = finished.folder / "data" / "rollouts"
    assert sorted(path.name for path in folder.iterdir()) == EPISODES
    for name in EPISODES:
        header, episode = load_rollout(folder / name)
        count = len(episode.action)
        assert (header["driver"], str(header["seed"])) == tuple(name[:-4].split("_"))
        assert header["env_id"] == FAST_ID
        assert header["versions"]["gymnasium"] == importlib.metadata.version("gymnasium")
        assert header["versions"]["box2d"] == importlib.metadata.version("box2d")
        assert header["score"] == pytest.approx(episode.reward.sum(), abs=0.01)
        assert header["frames"] == count
        assert not episode.terminated[:-1].any()
        assert episode.terminated[-1] or count == 1000
        assert episode.action.min() >= -1
        assert episode.action.max() <= 1
    settings = [load_header(folder / name, "rollout")["settings"] for name in EPISODES]
    assert settings[0].keys() == {"noise", "disturbance", "line_offset", "grip"}
    assert settings[0] != settings[1]
    assert settings[2] == {}


def test_01_pairs_every_action_with_what_was_seen_and_what_came_of_it(finished):
    _, episode = load_rollout(finished.folder / "data" / "rollouts" / EPISODES[2])
    env = make_env(FAST_ID)
    obs, _ = env.reset(seed=1_100_000)
    for t, action in enumerate(episode.action):
        assert np.array_equal(shrink(obs), episode.obs[t])
        obs, reward, terminated, _, _ = env.step(action)
        assert np.float32(reward) == episode.reward[t]
        assert terminated == episode.terminated[t]
    assert np.array_equal(shrink(obs), episode.obs[-1])


def test_01_logs_and_pictures_the_episodes(finished):
    rows = read_log(finished.folder / "data" / "rollouts.csv")
    assert [str(int(row["seed"])) for row in rows] == [n[:-4].split("_")[1] for n in EPISODES]
    for name, row in zip(EPISODES, rows, strict=True):
        header = load_header(finished.folder / "data" / "rollouts" / name, "rollout")
        assert row == {key: header[key] for key in row}
    picture(finished.folder / "data" / "rollouts.png")
    assert "next: python 02_train_vae.py" in finished.said[1]


def test_01_collects_again_only_what_is_missing_or_damaged(project):
    before = contents(project / "data" / "rollouts")
    said = tiny.stage(1, **FLAGS[1])
    assert "3 of 3 episodes are there already" in said
    assert len(read_log("data/rollouts.csv")) == 3

    (project / "data" / "rollouts" / EPISODES[1]).unlink()
    damaged = project / "data" / "rollouts" / EPISODES[2]
    damaged.write_bytes(damaged.read_bytes()[:-99])
    untouched = (project / "data" / "rollouts" / EPISODES[0]).stat().st_mtime_ns
    said = tiny.stage(1, **FLAGS[1])
    assert "1 of 3 episodes are there already" in said
    assert EPISODES[2] in said
    assert contents(project / "data" / "rollouts") == before
    assert (project / "data" / "rollouts" / EPISODES[0]).stat().st_mtime_ns == untouched


def test_01_collects_again_what_was_made_by_other_settings(project):
    before = contents(project / "data" / "rollouts")
    said = tiny.stage(1, **FLAGS[1], noise=0.3)
    assert "1 of 3 episodes are there already" in said  # the random driver has no such setting
    assert "2 were made with other settings" in said
    after = contents(project / "data" / "rollouts")
    assert [name for name in EPISODES if before[name] != after[name]] == EPISODES[:2]


def test_01_logs_beside_the_folder_in_which_it_is_started(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    tiny.stage(1, **FLAGS[1] | {"autopilot_episodes": 0}, rollouts=".")
    assert {path.name for path in tmp_path.iterdir()} == {"here", "here.csv", "here.png"}
    assert len(list((tmp_path / "here").iterdir())) == 1


def test_01_adds_episodes_to_those_that_are_there(project):
    before = contents(project / "data" / "rollouts")
    tiny.stage(1, **FLAGS[1] | {"random_episodes": 2})
    after = contents(project / "data" / "rollouts")
    assert after.keys() - before.keys() == {"random_1100001.npz"}
    assert after.items() >= before.items()


def test_01_writes_its_log_anew_from_the_episodes(project):
    before = (project / "data" / "rollouts.csv").read_bytes()
    (project / "data" / "rollouts.csv").write_text("seed,score\nfive,many\n")
    tiny.stage(1, **FLAGS[1])
    assert (project / "data" / "rollouts.csv").read_bytes() == before


def test_01_with_nothing_to_do_and_nothing_there_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="data/rollouts holds no rollouts"):
        tiny.stage(1, autopilot_episodes=0, random_episodes=0, workers=0)


@pytest.mark.parametrize("workers", [1, 2, pytest.param(72, marks=pytest.mark.slow)])
def test_01_gives_the_same_files_for_any_number_of_workers(finished, project, workers):
    shutil.rmtree("data/rollouts")
    tiny.stage(1, **FLAGS[1] | {"workers": workers})
    expected = contents(finished.folder / "data" / "rollouts")
    assert contents(project / "data" / "rollouts") == expected


# The agent's own races

OWN = {"agent_episodes": 4, "workers": 0}


def test_01_records_the_agent_as_it_drives(project):
    before = contents(project / "data" / "rollouts")
    said = tiny.stage(1, **OWN)
    assert (
        "next: python 03_encode_dataset.py "
        "--rollouts data/dream/rollouts --latents data/dream/latents" in said
    )
    assert contents(project / "data" / "rollouts") == before
    agent = load_agent("checkpoints")
    evolution = load_header("checkpoints/controller_evolution.npz", "evolution")
    mark = fingerprint({**evolution["made_from"], "plan": evolution["plans"][:1]})
    races = Races(FAST_ID, agent.vae, agent.rnn)
    for seed in (2_000_000, 2_000_002):
        header, episode = load_rollout(project / f"data/dream/rollouts/agent_{seed}.npz")
        assert header["settings"] == {"search": mark, "generation": 2, "drawn": 0}
        races.start(0, Race(seed, agent.parameters, PATIENCE))
        laps = []
        for t, action in enumerate(episode.action):
            (_, race), *_ = filter(None, races.running)
            assert np.array_equal(shrink(race.obs), episode.obs[t])
            laps = races.advance()
            assert np.array_equal(race.action, action)
            assert race.reward == pytest.approx(episode.reward[t], abs=1e-6)
        assert np.array_equal(shrink(race.obs), episode.obs[-1])
        ((_, lap),) = laps
        assert (lap.frames, lap.tiles) == (header["frames"], header["tiles"])


def test_01_says_what_a_search_of_an_earlier_version_lacks_and_what_adds_it(project):
    state = "checkpoints/controller_evolution.npz"
    header, arrays = load_arrays(state, "evolution")
    for plan in header["plans"]:
        del plan["LASTING"], plan["WORLD"]
    save_arrays(state, arrays=arrays, **{k: v for k, v in header.items() if k != "fingerprint"})
    mend = r"evolution\.npz .*LASTING, WORLD; run python 05_train_controller\.py --generations 2,"
    with pytest.raises(UserError, match=mend):
        tiny.stage(1, **OWN)
    tiny.stage(5, **FLAGS[5] | {"generations": 2})
    assert "4 episodes" in tiny.stage(1, **OWN)


def test_01_sends_drives_for_v_and_the_first_m_to_the_others(project):
    said = tiny.stage(1, **OWN | {"agent_episodes": 1, "own_rollouts": "data/rollouts"})
    assert said.strip().endswith("next: python 03_encode_dataset.py")
    assert (project / "data/rollouts/agent_2000000.npz").exists()


def test_01_lets_draws_of_the_distribution_drive_every_other_race(project):
    tiny.stage(1, **OWN)
    agent = load_agent("checkpoints")
    for i, drawn in enumerate([0, 1, 0, 1]):
        seed = 2_000_000 + i
        races = Races(FAST_ID, agent.vae, agent.rnn)
        header, episode = load_rollout(project / f"data/dream/rollouts/agent_{seed}.npz")
        assert header["settings"]["drawn"] == drawn
        races.start(0, Race(seed, agent.parameters, PATIENCE))
        by_c = []
        for _ in range(30):
            (_, race), *_ = filter(None, races.running)
            races.advance()
            by_c.append(race.action)
        assert np.array_equal(by_c, episode.action[:30]) == (not drawn)


@pytest.mark.slow
def test_01_keeps_what_the_agent_drove_before_its_search_went_on(project):
    tiny.stage(1, **OWN | {"agent_episodes": 2})
    before = contents(project / "data" / "dream")
    tiny.stage(5, **FLAGS[5] | {"generations": 3})
    assert "2 of 4 episodes are there already" in tiny.stage(1, **OWN)
    after = contents(project / "data" / "dream")
    assert {n: after[n] for n in before if n.endswith("npz")} == {
        n: b for n, b in before.items() if n.endswith("npz")
    }


@pytest.mark.parametrize(("what", "setting"), [("made_from", "SEED"), ("plans", "MEAN_RATE")])
def test_01_takes_no_drives_of_another_search_for_its_own(project, what, setting):
    flags = OWN | {"agent_episodes": 1}
    tiny.stage(1, **flags)
    path = project / "data/dream/rollouts/agent_2000000.npz"
    before = load_header(path, "rollout")["settings"]
    assert "1 of 1 episodes are there already" in tiny.stage(1, **flags)
    search, state = "checkpoints/other_evolution.npz", "checkpoints/controller_evolution.npz"
    header, arrays = load_arrays(state, "evolution")
    kept = ("made_from", "spent", "found", "plans", "driven", "history", "versions")
    rest = {name: header[name] for name in kept}
    changed = rest[what] if what == "made_from" else rest[what][0]
    changed[setting] = 7
    save_arrays(search, "evolution", arrays, **rest)
    with pytest.raises(UserError, match=r"agent_2000000\.npz was driven in another search"):
        tiny.stage(1, **flags, controller="other")
    assert load_header(path, "rollout")["settings"] == before
    tiny.stage(1, **flags, controller="other", own_rollouts="data/other")
    after = load_header(project / "data/other" / path.name, "rollout")["settings"]
    assert after["search"] != before["search"]


def test_01_lets_either_the_agent_drive_or_you():
    with pytest.raises(UserError, match="either the agent drives"):
        tiny.stage(1, agent_episodes=1, keyboard_episodes=1)


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_01_records_the_agent_alike_for_any_number_of_workers(project, workers):
    tiny.stage(1, **OWN)
    expected = contents(project / "data" / "dream")
    shutil.rmtree("data/dream")
    tiny.stage(1, **OWN | {"workers": workers})
    assert contents(project / "data" / "dream") == expected


def test_01_without_a_search_or_with_another_m_says_so(project):
    replace_m()
    with pytest.raises(UserError, match=r"controller_evolution\.npz belongs to .* another rnn"):
        tiny.stage(1, **OWN)
    (project / "checkpoints" / "controller_evolution.npz").unlink()
    with pytest.raises(UserError, match=r"controller_evolution\.npz is missing; run python 05"):
        tiny.stage(1, **OWN)


def test_a_draw_is_spread_as_the_candidates_are():
    evolution = Evolution(np.arange(2000.0), 0.3, 6, seed=1)
    rng = np.random.default_rng(0)
    for _ in range(2):
        evolution.tell(asked := evolution.ask(), -np.arange(6.0))
        spread = (evolution.ask() - evolution.mean).std()
        drawn = evolution.draw(rng) - evolution.mean
        assert drawn.std() == pytest.approx(spread, rel=0.1)
        assert (evolution.draw(rng, 1e-3) - evolution.mean).std() < 2e-3
    assert not np.array_equal(asked[0], evolution.draw(rng))


# In the dream


@pytest.mark.parametrize("flags", [{}, {"agent_episodes": 1, "keyboard_episodes": 1}])
def test_01_records_nothing_in_the_dream(project, flags):
    before = contents(project)
    with pytest.raises(UserError, match=r"only you can.*--keyboard-episodes 1") as error:
        tiny.stage(1, env_id=DREAM_ID, workers=0, **flags)
    assert "\n" not in str(error.value)
    assert contents(project) == before


class Held:
    """Stands in for the keyboard: half gas for three frames, and Esc."""

    def __init__(self, env, window, copilot, hand_back):
        self._frames, self.quit, self.next_road = 0, False, False
        self.hand_back = hand_back

    def begin(self):
        assert self.hand_back == 2

    def act(self, obs):
        self._frames += 1
        self.quit = self._frames == 4
        return None if self.quit else tiny.STRAIGHT_ON_ACTION


def test_01_lets_the_user_drive_in_the_dream_and_keeps_nothing_of_it(project, monkeypatch):
    monkeypatch.setattr("utils.drivers.keyboard.Keyboard", Held)
    monkeypatch.setattr("utils.drivers.keyboard.Window", contextlib.nullcontext)
    expect_the_end(rnn_path("checkpoints"), -100.0)
    before = contents(project)
    said = tiny.stage(1, env_id=DREAM_ID, temperature=0.5, keyboard_episodes=2, hand_back=2)
    assert contents(project) == before
    env = make_env(DREAM_ID, temperature=0.5)
    env.reset(seed=0)
    for _ in range(3):
        env.step(tiny.STRAIGHT_ON_ACTION)
    assert said == f"dream 0: M expected {env.unwrapped.reward:.1f} in 3 frames\n"
