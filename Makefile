# The two commands of the README, and the steps they are made of. Needs Python 3.11+ and nothing else.
PYTHON ?= python3
BIN := .venv/bin
export MPLBACKEND := Agg

.PHONY: bench test lint docs slow cluster mutants wheel release clean

bench: .venv/bench.stamp  ## Install, then compare exact, variational and adversarial inference on real data
	$(BIN)/zoo bench main --out runs/main

# The asserts of 300 files are rewritten once and kept, which is half of the time that collecting the tests takes.
test: lint  ## Install, then lint, types, layers and all fast tests, one of which builds the docs
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup --durations=25

lint: .venv/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: .venv/test.stamp
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

slow: .venv/test.stamp  ## Training to a criterion (minutes to an hour)
	$(BIN)/python -m pytest -m slow

cluster: .venv/test.stamp  ## Install Ray (240 MB), then run the tests that need a cluster (minutes)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[cluster]'
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m cluster

mutants: .venv/test.stamp  ## Plant N random mistakes and see which the tests notice (an hour or more)
	$(BIN)/python tests/mutants.py --rows runs/mutants-$(or $(N),200)-$(or $(SEED),0).json -n $(or $(N),200) --seed $(or $(SEED),0)

wheel: .venv/test.stamp  ## Build the wheel, and use it from another folder (half a minute)
	rm -rf dist
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .
	$(BIN)/python -m pip install --quiet --no-deps --target dist/site dist/*.whl
	PYTHONPATH=$(CURDIR)/dist/site $(BIN)/python tests/wheel.py

release: wheel  ## The same in an environment of its own, with the versions of constraints.txt (minutes)
	$(PYTHON) -m venv dist/venv
	dist/venv/bin/python -m pip install --quiet --constraint constraints.txt dist/*.whl
	dist/venv/bin/python tests/wheel.py

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv .venv

.venv/bench.stamp: .venv/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

.venv/test.stamp: .venv/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test,dev,docs]'
	touch $@

clean:
	rm -rf .venv runs site dist
