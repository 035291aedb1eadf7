"""Files: how all that we make is saved whole and says what it was made from, and is read with care.

The formats of episodes and latents belong to the world model, which is built on this room.
"""
