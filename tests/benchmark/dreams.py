"""Dreaming beside driving: candidates in M's dream, beside the decision loop on the track."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from copy import deepcopy

import numpy as np
import torch

from benchmark.loop import Networks
from benchmark.measuring import Effort, Figures, heading, line, speed_lines, take_turns
from models.dream import DreamWorld, Luck
from models.inference import ROWS, arithmetic
from utils.evolution.dreaming import DREAMS, dream, dreaming_workers
from utils.racing.agent import racing_workers
from utils.racing.race import Race
from utils.simulator import seeds
from utils.simulator.envs import FAST_ID
from utils.world_model.starts import FRAMES, Starts

STARTS = 16  # dreams of a candidate


def measure_dreams(networks: Networks, effort: Effort) -> Figures:
    """Frames dreamt on one core and on two, beside frames driven; and where their time goes."""
    vae, rnn, parameters, _ = networks
    races = [
        Race(seed, parameters, effort.patience)
        for seed in range(seeds.EVOLUTION, seeds.EVOLUTION + max(2, effort.races // 4))
    ]
    with ExitStack() as stack:

        def driver(count: int) -> Callable[[int], int]:
            workers = stack.enter_context(racing_workers(count, FAST_ID, vae, rnn))
            workers.run([Race(0, parameters, patience=1)] * ROWS * count)
            return lambda turn: sum(lap.frames for lap in workers.run(races))

        def dreamer(count: int, other: bool = False) -> Callable[[int], int]:
            dreaming = deepcopy(rnn) if other else rnn
            workers = stack.enter_context(dreaming_workers(count, rnn, dreaming, 1.0))
            starts, luck = _starts(vae.sizes["latent_dim"]), [(0, i) for i in range(STARTS)]
            candidates = np.tile(parameters, (2 * DREAMS // STARTS, 1))
            everybody = [range(len(candidates))]
            dream(workers, candidates, everybody, starts, luck, 1)

            def work(turn: int) -> int:
                returns = dream(workers, candidates, everybody, starts, luck, effort.dreamt)
                return returns.size * effort.dreamt

            return work

        contenders = {
            "driving: the decision loop, one worker": driver(1),
            "dreaming, one worker": dreamer(1),
            "  of another M than the one that C reads": dreamer(1, other=True),
            "dreaming, two workers": dreamer(2),
        }
        rates = take_turns(contenders, effort.turns, time.perf_counter)
    loop, one, other, two = contenders
    heading(f"Dreams, {DREAMS} at once", "frames/s", "us a frame", "of driving")
    speed_lines(rates, loop)
    return {
        "dreamt_frames_per_s": [rates.of(one), rates.of(two)],
        "dream_over_loop": rates.ratio(one, loop),
        "dreamt_frames_per_s_of_another_m": rates.of(other),
        "dream_of_another_m_over_loop": rates.ratio(other, loop),
        "two_dreamers_over_one": rates.ratio(two, one),
        **_parts(networks, effort),
    }


def _starts(latent_dim: int) -> Starts:
    rng = np.random.default_rng(0)
    mu = rng.standard_normal((STARTS, FRAMES + 1, latent_dim), np.float32)
    action = rng.random((STARTS, FRAMES, 3), np.float32)
    return Starts(mu, action, np.full(STARTS, FRAMES))


@torch.inference_mode()
def _parts(networks: Networks, effort: Effort) -> Figures:
    dtype = getattr(torch, arithmetic())
    world, sizes = DreamWorld(networks.rnn, dtype=dtype), networks.rnn.sizes
    z, action = torch.randn(DREAMS, sizes["latent_dim"]), torch.rand(DREAMS, 3)
    h, c = world.fresh(DREAMS)
    shape = (DREAMS, sizes["latent_dim"], sizes["mixtures"])
    luck = Luck(torch.randn(shape), torch.randn(shape[:2]))
    inputs, gates = torch.cat([z, action, h], 1), 4 * sizes["hidden"]
    weight = torch.randn(inputs.shape[1], gates, dtype=dtype)
    heads = torch.randn(sizes["hidden"], 3 * 160 + 2, dtype=dtype)
    works: dict[str, Callable[[], object]] = {
        "remember: the LSTM": lambda: world.remember(z, action, h, c),
        "  of it the matrix product": lambda: inputs.to(dtype) @ weight,
        "imagine: mixtures, reward, end": lambda: world.imagine(h, luck),
        "  of which its matrix product": lambda: h.to(dtype) @ heads,
    }
    heading("... its parts", "us a frame")
    found = {}
    for name, work in works.items():
        work()
        start = time.process_time()
        for _ in range(effort.dreamt):
            work()
        found[name] = 1e6 * (time.process_time() - start) / effort.dreamt / DREAMS
        line(name, found[name])
    return {"dream_parts_us": found}
