"""The game: CarRacing by name, ours with the physics of the stock one, and which tracks serve what.

What drives a car, or learns from it, does not belong here; no other room is imported.
"""
