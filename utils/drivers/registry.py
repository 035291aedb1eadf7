"""Drivers that are not the agent, by name; a new one is one line here."""

from utils.drivers.autopilot import Autopilot
from utils.drivers.random_driver import RandomDriver

DRIVERS = {"autopilot": Autopilot, "random": RandomDriver}
