"""The rooms of the house, from the ground up; each imports only rooms before it in this list.

    runtime, simulator    the machine, and the game
    storage               files
    pictures              films and plots
    drivers               whoever drives besides the agent
    racing, world_model   the agent at the wheel; V and M in training (neither knows the other)
    evolution             how C is found

`models`, beside this folder, is the networks alone and stands below all of it.
"""
