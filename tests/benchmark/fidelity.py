"""Is it the same game? Frames beside stock's, and to the bit states, rewards and tracks."""

import itertools

import frames
import numpy as np
from gymnasium.envs.box2d.car_racing import CarRacing

from benchmark.measuring import Effort, Figures, heading, line
from utils.simulator.envs import FRAME_SIZE
from utils.simulator.fast_car_racing import FastCarRacing


def measure_fidelity(effort: Effort, replay: Figures, picture: str | None) -> Figures:
    """Frames, and to the bit states, rewards and tracks, beside stock's."""
    parts = {}
    pairs = {}
    tracks, steps = effort.compared
    for size, label in ((96, "frames"), (FRAME_SIZE, "the agent's view")):
        names = label, f"{label}, the zooming first second"
        parts |= {name: frames.Comparison() for name in names}
        behaviours = itertools.cycle(frames.BEHAVIOURS)
        for number, behaviour in zip(range(tracks), behaviours, strict=False):
            found = frames.compare_frames([number], steps, (behaviour,), size)
            for name, part in zip(names, found, strict=True):
                _merge(parts[name], part)
                kind = behaviour if name == label else "opening"
                if size == 96 and part.frames and part.worst <= pairs.get(kind, (np.inf,))[0]:
                    pairs[kind] = part.worst, part.worst_frame[1:]
    if picture:
        frames.write_picture(picture, [pair for _, pair in pairs.values()])

    different = [found for part in parts.values() for found in part.mismatches]
    driven = sum(part.frames for part in parts.values()) + replay["replayed_frames"]
    tracks, steps = effort.physics
    numbers = range(500, 500 + tracks)
    for seed, behaviour in zip(numbers, itertools.cycle(frames.BEHAVIOURS), strict=False):
        envs = CarRacing(), FastCarRacing()
        driven += frames.compare_physics(*envs, seed, behaviour, steps, different)
    mismatches = len(different) + replay["replayed_rewards_that_differ"]

    heading("Is it the same game? ours beside stock", "frames", "PSNR", "worst", "mean error")
    for label, part in parts.items():
        decibels = f"{part.psnr:.1f} dB", f"{part.worst:.1f} dB"
        line(label, part.frames, *decibels, f"{part.mae:.3f} of 255")
    line("states, rewards, ends and tracks, to the bit", driven, f"{mismatches} differ")
    figures = {}
    for name, part in zip(
        ("frame", "opening", "view", "view_opening"), parts.values(), strict=True
    ):
        figures |= {
            f"{name}_psnr_db": part.psnr,
            f"{name}_psnr_worst_db": part.worst,
            f"{name}_mae": part.mae,
            f"{name}s_compared": part.frames,
        }
    return {
        **figures,
        "physics_mismatches": mismatches,
        "physics_frames_compared": driven,
    }


def _merge(total: frames.Comparison, part: frames.Comparison) -> None:
    total.frames += part.frames
    total.squared += part.squared
    total.absolute += part.absolute
    total.mismatches += part.mismatches
    total.worst = min(total.worst, part.worst)
