"""How V and M come about: episodes on disk, their latents, the training, and the dream.

Nothing here needs a controller: V and M learn by watching others drive.
"""
