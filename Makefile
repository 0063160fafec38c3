# `make demo` and `make test` are all that a new user needs; the rest is for CI and developers.
PYTHON ?= python3
BIN := .venv/bin
export JAX_COMPILATION_CACHE_DIR ?= $(CURDIR)/build/jax-cache
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS ?= 0

.PHONY: demo test small-model lint types notebooks docs ci clean

.venv/.core: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

.venv/.dev: .venv/.core
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

.venv/.peers: .venv/.dev
	$(BIN)/python -m pip install --quiet --editable '.[peers]'
	touch $@

.venv/.docs: .venv/.dev
	$(BIN)/python -m pip install --quiet --editable '.[notebooks,docs]'
	touch $@

demo: .venv/.core
	$(BIN)/lfjax simulate --microscope 60x1.2w --lenslets 25 --sample neurons -o demo
	$(BIN)/lfjax reconstruct demo/light_field.tif --white demo/white.tif --dark demo/dark.tif \
	  --microscope demo/microscope.toml --solver richardson_lucy -o demo/volume.ome.tif
	@echo "demo/volume.ome.tif opens in ImageJ and napari; demo/volume.png shows it, demo/volume.fit.png how it explains the frame"

# A file of tests a process, two at a time: most of their time one core compiles.
test: .venv/.dev
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: .venv/.dev
	$(BIN)/ruff check .

types: .venv/.dev
	$(BIN)/mypy

notebooks: .venv/.docs
	mkdir -p build/notebooks
	$(BIN)/jupyter-nbconvert --to notebook --execute --output-dir build/notebooks notebooks/*.ipynb

docs: notebooks
	mkdir -p docs/notebooks && cp build/notebooks/*.ipynb docs/notebooks/
	$(BIN)/sphinx-build -q -W -b html docs docs/_build/html

# Large arrays in huge pages: fresh memory costs the CPU more than many a computation (see docs/performance.md).
bench-%: export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1
bench-%: .venv/.peers
	$(BIN)/python -m benchmarks.$* $(BENCH_ARGS)

# The trained model that comes with the package.
small-model: .venv/.core
	$(BIN)/lfjax train lfjax/training/small.toml -o lfjax/training/small.h5 --half

ci:
	bash .ci/run

clean:
	rm -rf .venv build demo docs/_build docs/notebooks
