"""How C is found: imitation for a start, then CMA-ES with a fitness and a choice of tracks.

This room stands on all others; none of them knows of it.
"""
