"""Races of the drivers that are not the agent."""

from functools import partial
from typing import Any

from utils.drivers.registry import DRIVERS
from utils.racing.race import Environment, Lap, Race, RunningRace
from utils.simulator import seeds
from utils.simulator.envs import make_env, shrink


class DriverRaces:
    """Races of one driver, one at a time: the function of a `utils.runtime.workers.OneAtATime`.

    Args:
        settings: of the driver; options: those of `make_env`.
    """

    def __init__(self, driver: str, settings: dict[str, Any], env_id: str, **options: Any) -> None:
        self._driver = driver
        self._settings = settings
        self._make_env = partial(make_env, env_id, **options)
        self._env: Environment | None = None

    def __call__(self, race: Race) -> Lap:
        """Drive the race to its end; its parameters play no part."""
        if self._env is None:
            self._env = self._make_env()
        running = RunningRace(race, self._env)
        rng = seeds.stream(race.seed, seeds.Draw.DRIVER)
        driver = DRIVERS[self._driver](self._env, rng, **self._settings)
        while not running.over:
            running.step(driver.act(shrink(running.obs)))
        return running.lap()
