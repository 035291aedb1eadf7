"""The networks alone, without files or environments: V (`vae`), M (`mdn_rnn`) and C (`controller`).

`inference` is how V and M run at the wheel, `dream` what M imagines: the next z, reward and end.
"""
