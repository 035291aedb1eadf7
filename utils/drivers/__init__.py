"""Who may drive beside the agent: the autopilot that is shown the map, random actions, and you.

A driver is made from an environment that has been reset and has one method, `act(obs) -> action`.
"""
