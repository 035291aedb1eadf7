"""Races: the one under way, the agent that drives eight at once, and the report on them.

How V and M are trained does not belong here, nor how C is found.
"""
