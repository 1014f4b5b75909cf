"""Suites: every claim about skip connections as something that can be run and seen."""
