PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test test-inductor test-mutations lint bench setup clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

demo: $(READY)
	$(BIN)/onelip train digits

test: $(READY)
	$(BIN)/python -m pytest -n 2

test-inductor: $(READY)
	ONELIP_BACKEND=inductor $(BIN)/python -m pytest -n 2 tests/contract/test_compile.py -k compiled

test-mutations: $(READY)
	$(BIN)/python -m pytest -s -m slow tests/test_mutations.py

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(READY)
	cd benchmarks && for file in norms power_step training_step inference layers soc dense block_convolution liplt_step network_bounds inverse curvature forward_error; do ../$(BIN)/python $$file.py; done

clean:
	rm -rf .venv build dist src/*.egg-info
