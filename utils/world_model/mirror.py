"""A drive with left and right exchanged, as true as the drive itself.

All tracks lead counter-clockwise, and of four places in a bend three bend to the left. An M that
has seen such drives alone dreams of right-hand bends too seldom and too badly for a C to learn them
there; with the mirror image of every drive it knows both alike.
"""

from pathlib import Path

import numpy as np

from utils.simulator.dashboard import CELLS, STEERING, YAW
from utils.simulator.envs import FRAME_SIZE, horizon
from utils.storage.remedies import MIRRORED
from utils.world_model.episodes import Episode

BAR = horizon(FRAME_SIZE)  # the row with which the dashboard begins
REACH = FRAME_SIZE * 5 // CELLS  # pixels to either side of a gauge; a spin's yaw reaches further


def mirrored(episode: Episode) -> Episode:
    """The same drive where right is left."""
    action = episode.action * np.array([-1, 1, 1], np.float32)
    return episode._replace(obs=mirrored_frames(episode.obs), action=action)


def mirrored_frames(frames: np.ndarray) -> np.ndarray:
    """frames (N, 64, 64, 3) uint8 -> the same with left and right exchanged.

    Of the dashboard only the gauges that show a direction are, each about its own middle. Those of
    the left and right wheels, which hardly differ, stay as they are.
    """
    other = frames[:, :, ::-1].copy()
    other[:, BAR:] = frames[:, BAR:]
    for gauge in (STEERING, YAW):
        middle = gauge * FRAME_SIZE // CELLS
        reach = slice(middle - REACH, middle + REACH)
        other[:, BAR:, reach] = frames[:, BAR:, reach][:, :, ::-1]
    return other


def mirror_image(latents: Path) -> Path:
    """Where the latents of the mirrored drive are, beside those of the drive."""
    return latents.parent / MIRRORED / latents.name
