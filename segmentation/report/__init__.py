"""One offline page and one results file from a study folder or a run folder."""
