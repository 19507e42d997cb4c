"""Fuzz targets: what reads the proxy's bytes and the module's, given anything at all (`make fuzz`).

A target is `run(data)`, which raises where something is wrong, and `seeds()` to begin from. `corpus/` holds
inputs that reach code, `findings/` those that once found something; `test_replay.py` runs both on every
`make test`.
"""
