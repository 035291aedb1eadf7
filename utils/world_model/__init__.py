"""How V and M come about: episodes on disk, their latents, the training, and the dream.

Nothing here searches for a controller: V and M learn from recorded drives, whoever drove.
"""
