"""What is looked at: films, plots, the window of who drives and the page of the dream, drawn from
plain numbers and frames.

Nothing is computed here that a stage would need.
"""
