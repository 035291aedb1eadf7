"""The agent beside a person who drives: as good as at the wheel, whoever has it."""

import numpy as np
import pytest
import tiny
import torch

from models.mdn_rnn import expected_next
from models.vae import decoded
from utils.racing.agent import Races
from utils.racing.copilot import AgentBeside, copilot
from utils.racing.race import Race
from utils.simulator.envs import FAST_ID, make_env, shrink
from utils.storage.networks import TrainedAgent

FRAMES = 60


@pytest.fixture
def trained():
    vae, rnn = tiny.networks()
    return TrainedAgent(vae, rnn, {}, {}, tiny.lively(3), {})


def test_at_the_wheel_it_drives_as_in_any_race(trained):
    races = Races(FAST_ID, trained.vae, trained.rnn)
    races.start(0, Race(7, trained.parameters))
    _, race = races.running[0]
    agent, env = AgentBeside(trained), make_env(FAST_ID)
    for _ in range(2):  # and in a second race as in a first
        agent.begin()
        obs, _ = env.reset(seed=7)
        for t in range(FRAMES):
            action = agent.decide(shrink(obs)).copy()
            agent.remember(action)
            obs, *_ = env.step(action)
            if not t:
                first = action
        assert not np.array_equal(action, first)
    for _ in range(FRAMES):
        races.advance()
    assert np.array_equal(race.action, action)
    assert np.array_equal(race.obs, obs)


@torch.no_grad()
def test_it_thinks_what_v_and_m_make_of_the_frames_and_of_what_the_person_did(trained):
    agent = AgentBeside(trained)
    agent.begin()
    frames = tiny.episode(20).obs
    actions = np.random.default_rng(1).uniform((-1, 0, 0), 1, (20, 3)).astype(np.float32)
    for frame, action in zip(frames, actions, strict=False):
        agent.decide(frame)
        agent.remember(action)
    agent.decide(frames[20])
    thoughts = agent.thoughts()
    z = trained.vae.encode(torch.from_numpy(frames))[0]
    prediction, _ = trained.rnn(z[None, :20], torch.from_numpy(actions)[None])
    expected = expected_next(prediction)[0, -1]
    wanted = decoded(trained.vae, torch.stack([z[20], expected]).numpy())
    for picture, want in zip((thoughts.redrawn, thoughts.expected), wanted, strict=True):
        assert np.abs(picture.astype(int) - want).max() <= 8  # V may run in bfloat16
    assert thoughts.reward == pytest.approx(float(prediction.reward[0, -1]), abs=0.02)


def test_where_there_is_no_agent_nobody_says_why(project):
    there = copilot("checkpoints", "straight_on")
    there.begin()
    assert there.decide(np.zeros((64, 64, 3), np.uint8)) == pytest.approx(tiny.STRAIGHT_ON_ACTION)
    assert not there.why_not
    for checkpoints, name, said in (
        ("checkpoints", "nobody", "nobody.pt (the C) is missing"),
        ("nowhere", "controller", "vae.pt (the V) is missing"),
    ):
        absent = copilot(checkpoints, name)
        assert not isinstance(absent, AgentBeside)
        assert said in absent.why_not
        assert "run python 0" in absent.why_not
        assert absent.thoughts() is None
