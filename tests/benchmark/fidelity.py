"""Is it the same game? Frames beside stock's, and to the bit states, rewards and tracks."""

import itertools

import frames
import numpy as np
from gymnasium.envs.box2d.car_racing import CarRacing

from benchmark.measuring import Effort, Figures, heading, line
from utils.simulator.fast_car_racing import FastCarRacing


def measure_fidelity(effort: Effort, replay: Figures, picture: str | None) -> Figures:
    """Frames, and to the bit states, rewards and tracks, beside stock's."""
    parts = {"later": frames.Comparison(), "opening": frames.Comparison()}
    pairs = {}
    tracks, steps = effort.compared
    for number, behaviour in zip(range(tracks), itertools.cycle(frames.BEHAVIOURS), strict=False):
        found = frames.compare_frames([number], steps, (behaviour,))
        for name, part in zip(parts, found, strict=True):
            _merge(parts[name], part)
            kind = behaviour if name == "later" else name
            if part.frames and part.worst <= pairs.get(kind, (np.inf,))[0]:
                pairs[kind] = part.worst, part.worst_frame[1:]
    if picture:
        frames.write_picture(picture, [pair for _, pair in pairs.values()])

    later, opening = parts["later"], parts["opening"]
    different = later.mismatches + opening.mismatches
    driven = later.frames + opening.frames + replay["replayed_frames"]
    tracks, steps = effort.physics
    numbers = range(500, 500 + tracks)
    for seed, behaviour in zip(numbers, itertools.cycle(frames.BEHAVIOURS), strict=False):
        envs = CarRacing(), FastCarRacing()
        driven += frames.compare_physics(*envs, seed, behaviour, steps, different)
    mismatches = len(different) + replay["replayed_rewards_that_differ"]

    heading("Is it the same game? ours beside stock", "frames", "PSNR", "worst", "mean error")
    for label, part in (("frames", later), ("frames of the zooming first second", opening)):
        decibels = f"{part.psnr:.1f} dB", f"{part.worst:.1f} dB"
        line(label, part.frames, *decibels, f"{part.mae:.3f} of 255")
    line("states, rewards, ends and tracks, to the bit", driven, f"{mismatches} differ")
    return {
        "frame_psnr_db": later.psnr,
        "frame_psnr_worst_db": later.worst,
        "frame_mae": later.mae,
        "frames_compared": later.frames,
        "opening_psnr_db": opening.psnr,
        "opening_psnr_worst_db": opening.worst,
        "opening_mae": opening.mae,
        "physics_mismatches": mismatches,
        "physics_frames_compared": driven,
    }


def _merge(total: frames.Comparison, part: frames.Comparison) -> None:
    total.frames += part.frames
    total.squared += part.squared
    total.absolute += part.absolute
    total.mismatches += part.mismatches
    total.worst = min(total.worst, part.worst)
