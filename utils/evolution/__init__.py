"""How C is found, on the track or in dreams: CMA-ES, fitness, the choice of tracks, imitation; the
agent's own drives; and what M is worth to it.

This room stands on all others; none of them knows of it.
"""
