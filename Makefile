# Everything runs in .venv, which the first target that needs it creates.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PEERS := $(VENV)/.peers

.PHONY: demo test lint docs picture bench bench-quick clean

demo: $(STAMP)
	$(BIN)/tersor demo

test: $(STAMP) lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

lint: $(STAMP)
	$(BIN)/ruff format --check src tests bench examples
	$(BIN)/ruff check src tests bench examples
	$(BIN)/basedpyright --pythonpath $(BIN)/python

# Every example on the pages runs; a warning is an error. The pages are in docs/_build/html.
docs: $(STAMP)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[docs]'
	$(BIN)/sphinx-build -W --keep-going -q -b doctest docs docs/_build/doctest
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html

# The picture of the README, from a measured run.
picture: $(STAMP)
	$(BIN)/python docs/picture.py bench/results/cifar10.json docs/picture.svg

# Hours; resumable. `make bench ONLY="peers latency"` runs a part.
bench: $(PEERS)
	$(BIN)/python -m bench $(ONLY)

bench-quick: $(PEERS)
	$(BIN)/python -m bench --quick

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "tersor needs Python 3.11 or newer, and $(PYTHON) is older. Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[test]'
	touch $(STAMP)

$(PEERS): $(STAMP) bench/peers/requirements.txt
	$(BIN)/python -m pip install -q --disable-pip-version-check -r bench/peers/requirements.txt
	touch $(PEERS)

clean:
	rm -rf $(VENV)
