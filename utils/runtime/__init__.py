"""What any long-running script needs, whatever it computes: errors that are sentences, constants as
flags, worker processes that may die, on this machine or a cluster, progress bars and clocks.

Nothing here knows of cars, networks or files of ours; no other room is imported.
"""
