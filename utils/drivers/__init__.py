"""Who may drive besides the agent: the autopilot that is shown the map, random actions, and you.

A driver is made for an environment that has been reset, and acts: `act(obs) -> action`. A new one
is a line in `registry.py`, which says what is needed beside that to record it.
"""
