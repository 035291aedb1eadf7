"""What is looked at: films and plots, drawn from plain numbers and frames.

Nothing is computed here that a stage would need.
"""
