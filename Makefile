# Each target first installs what it needs into .venv, from the exact versions in constraints.txt.
BIN := .venv/bin

.PHONY: demo test test-all bench lint clean

# Four real lung CTs: a U-Net with concatenated long skips against one without, every patient left out once.
demo: .venv/installed
	$(BIN)/skipseg prepare lung-ct --out runs/data/lung-ct
	$(BIN)/skipseg ablate configs/ablation/demo.yaml --out runs/demo
	@echo "Report: $(CURDIR)/runs/demo/report.html"

test: .venv/installed-dev
	$(BIN)/python -m pytest

test-all: .venv/installed-dev
	$(BIN)/python -m pytest -m ""

# Ours beside MONAI, and nnU-Net in an environment of its own: less than an hour of 2 quiet cores.
bench: .venv/installed-dev
	$(BIN)/python -m tests.benchmarks

lint: .venv/installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright
	$(BIN)/lint-imports --no-logo

# Everything that can be made again; runs/ holds results and stays.
clean:
	rm -rf .venv .hypothesis .import_linter_cache .pytest_cache .ruff_cache build dist skipseg.egg-info

# The stamp is written last, so an interrupted installation is taken up again.
.venv/installed .venv/installed-dev: pyproject.toml constraints.txt
	python3 -m venv .venv
	$(BIN)/python -m pip install --constraint constraints.txt --editable ".[$(if $(findstring dev,$@),dev,ui)]"
	touch $@
