"""Races: the one under way, the agent that drives eight at once or sits beside a person, what
machines must have in common for a race to come to the same, and the report.

How V and M are trained does not belong here, nor how C is found.
"""
