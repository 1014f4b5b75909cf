"""Probes: look into a trained run. Each measures one thing, defined in its docstring, and returns plain data."""
