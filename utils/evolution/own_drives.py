"""The agent's own drives, recorded as stage 01 records anybody's: what M has to know of it."""

from pathlib import Path
from types import SimpleNamespace

from models.controller import FeatureScale
from models.mdn_rnn import MDNRNN
from models.vae import VAE
from utils.evolution.plan import Plan
from utils.evolution.search import Search
from utils.racing.agent import Races
from utils.racing.race import PATIENCE, Race, RunningRace
from utils.simulator import seeds
from utils.simulator.envs import shrink
from utils.world_model.collection import Assignment, save
from utils.world_model.episodes import Recorder


def plan_drives(
    directory: str, env_id: str, count: int, search: Search, scale: FeatureScale
) -> list[Assignment]:
    """`count` races on tracks of their own: in turn by C and by draws from its distribution.

    Their settings say by which search, so that the drives of another are not taken for its own.
    """
    evolution, planned = search.evolution, []
    now = search.scheduled(Plan.of(SimpleNamespace(**search.settings)))
    for i, seed in enumerate(seeds.ROLLOUTS["agent"][:count]):
        parameters = search.best
        if i % 2:
            rng = seeds.stream(seed, seeds.Draw.DRIVER)
            parameters = scale.plain(evolution.draw(rng, now.most_sigma))
        path = Path(directory) / f"agent_{seed}.npz"
        settings = {"search": search.mark, "generation": evolution.generation, "drawn": i % 2}
        planned.append(Assignment(str(path), "agent", seed, settings, env_id, parameters))
    return planned


class RecordedRaces(Races):
    """Races that are saved: a job is an `Assignment`, its result a log's row."""

    def __init__(self, env_id: str, vae: VAE, rnn: MDNRNN) -> None:
        super().__init__(env_id, vae, rnn)
        self._recorded: dict[int, tuple[Assignment, Recorder]] = {}

    def start(self, job_id: int, assignment: Assignment) -> None:
        assert assignment.parameters is not None
        super().start(job_id, Race(assignment.seed, assignment.parameters, PATIENCE))
        self._recorded[job_id] = assignment, Recorder()

    def result(self, row: int, job_id: int, running: RunningRace) -> dict[str, float] | None:
        """The row for the log, once the race is over and saved."""
        assignment, recorder = self._recorded[job_id]
        frame = self.agent.frames[row].copy()
        recorder.note(frame, running.action, running.reward, running.terminated)
        if not running.over:
            return None
        del self._recorded[job_id]
        episode, lap = recorder.episode(shrink(running.obs)), running.lap()
        return save(assignment, episode, lap.tiles, lap.total_tiles, lap.score)
