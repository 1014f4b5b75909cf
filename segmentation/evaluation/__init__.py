"""Scoring of folders of label maps against references, with tables, intervals and overlays; needs no network."""
