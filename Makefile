# `make demo` and `make test` are all that a new user needs; the rest is for CI and developers.
PYTHON ?= python3
BIN := .venv/bin
# Compiled programs are kept in the user's cache folder, so that a second clone, or the next run, does not compile them again.
export LFJAX_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/lfjax
export JAX_COMPILATION_CACHE_DIR ?= $(LFJAX_CACHE)/compiled
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS ?= 0

BENCHMARKS := $(patsubst benchmarks/%.py,%,$(shell grep -l __main__ benchmarks/*.py))
NOTEBOOKS := $(notdir $(wildcard notebooks/*.ipynb))

.PHONY: demo test fuzz torture small-model lint types notebooks docs toys ci clean

.venv/.core: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[all]'
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
	$(BIN)/lfjax simulate --microscope 60x1.2w --lenslets 25 --sample neurons --overwrite -o demo
	$(BIN)/lfjax reconstruct demo/light_field.tif --white demo/white.tif --dark demo/dark.tif \
	  --microscope demo/microscope.toml --solver richardson_lucy --overwrite -o demo/volume.ome.tif
	@echo "demo/volume.ome.tif opens in ImageJ and napari; demo/volume.png shows it, demo/volume.fit.png how it explains the frame"

# Two processes, a file of tests at a time: most of their time one core compiles.
test: .venv/.dev
	$(BIN)/python -m pytest -n 2 --dist loadfile

# Commands killed, interrupted, on full disks, twice at once: small; `make bench-reliability` does it often.
torture: .venv/.dev
	$(BIN)/python -m pytest tests/torture tests/io/test_disk_space.py tests/io/test_lock.py tests/io/test_chunk_checks.py

# Style, undefined names, and the order in which rooms may import one another.
lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: .venv/.dev
	$(BIN)/mypy

# Each notebook is executed by itself; `make -j2 notebooks` runs two at a time.
notebooks: $(addprefix build/notebooks/,$(NOTEBOOKS))

build/notebooks/%.ipynb: notebooks/%.ipynb .venv/.docs
	@mkdir -p build/notebooks
	$(BIN)/jupyter-nbconvert --to notebook --execute --log-level WARN --output-dir build/notebooks $<

docs: notebooks
	mkdir -p docs/notebooks && cp build/notebooks/*.ipynb docs/notebooks/
	$(BIN)/sphinx-build -q -W -b html docs docs/_build/html

# Large arrays in huge pages: fresh memory costs the CPU more than many a computation (see docs/performance.md).
bench-% toy-%: export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1
# A toy mostly compiles, which takes a third of the time without XLA's optimisations.
toy-%: export XLA_FLAGS ?= --xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false
bench-%: .venv/.peers
	$(BIN)/python -m benchmarks.$* $(BENCH_ARGS)

# Every benchmark at toy size.
toys: $(addprefix toy-,$(BENCHMARKS))

toy-%: .venv/.peers
	@start=$$(date +%s); $(BIN)/python -m benchmarks.$* --toy && echo "toy-$* took $$(($$(date +%s) - start)) s"

# The trained model that comes with the package.
small-model: .venv/.core
	$(BIN)/lfjax train lfjax/training/small.toml -o lfjax/training/small.h5 --half

# Mutated files on every reader; FUZZ="--count 10000" for many, FUZZ="--reader PSF --first 7 --count 1" for one of them again.
fuzz: .venv/.dev
	$(BIN)/python -m tests.fuzz $(FUZZ)

ci:
	bash .ci/run

clean:
	rm -rf .venv build demo docs/_build docs/notebooks
