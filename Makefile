PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: checker checker-page coq demo test test-quick test-inductor test-mutations test-torch lint bench docs tutorials dist setup clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

demo: $(READY)
	$(BIN)/onelip train digits

test: $(READY)
	$(BIN)/python -m pytest -n 2

test-quick: $(READY)
	$(BIN)/python -m pytest -n 2 --quick

test-inductor: $(READY)
	ONELIP_BACKEND=inductor $(BIN)/python -m pytest -n 2 tests/contract/test_compile.py -k compiled

test-mutations: $(READY)
	$(BIN)/python -m pytest -s -m slow tests/test_mutations.py

TORCH ?=
test-torch: $(READY)
ifeq ($(TORCH),)
	$(BIN)/python benchmarks/torch_versions.py
else
	$(PYTHON) -m venv .venv-torch
	.venv-torch/bin/pip install --quiet -e '.[dev]' torch==$(TORCH)
	.venv-torch/bin/python benchmarks/torch_versions.py
endif

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

checker:
	@if command -v go >/dev/null; then \
		cd src/onelip/checker/go && go build -o $(CURDIR)/build/onelip-check . && echo "build/onelip-check: the checker in Go"; \
	else echo "make checker: no go here, nothing is built"; fi

checker-page:
	@if command -v go >/dev/null; then $(PYTHON) src/onelip/checker/page/build.py build/onelip-check.html; \
	else echo "make checker-page: no go here, nothing is built"; fi

coq:
	@sh src/onelip/checker/coq/compile.sh

bench: $(READY)
	cd benchmarks && for file in norms power_step training_step inference layers soc dense block_convolution liplt_step network_bounds inverse curvature forward_error; do ../$(BIN)/python $$file.py; done

EXECUTE ?= 0
docs: $(READY)
	EXECUTE=$(EXECUTE) $(BIN)/sphinx-build -q -W --keep-going -d build/doctrees docs build/docs
	@echo "build/docs/index.html"

tutorials: $(READY)
	$(BIN)/python docs/execute.py

dist: $(READY)
	rm -rf dist build/sdist && mkdir -p dist build/sdist
	$(BIN)/python -c "from setuptools import build_meta; build_meta.build_sdist('dist')"
	tar xzf dist/onelip-*.tar.gz -C build/sdist --strip-components 1
	cd build/sdist && $(abspath $(BIN))/python -c "from setuptools import build_meta; build_meta.build_wheel('$(CURDIR)/dist')"

clean:
	rm -rf .venv build dist docs/api docs/gallery src/*.egg-info
