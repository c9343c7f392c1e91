# make demo   convert the shipped Stage2 and check every runtime (makes .venv first)
# make check  the quick tests, under a minute: what to run while working
# make test   all tests but those that need a device's tools
# make test-devices   those: compilers, emulators, adb, ssh, browsers
# make qat-report   evaluate the shipped weights, float and int8, in every runtime: benchmarks/qat.md
# make wheel-demo   build the wheel, install it in a clean environment, and run the demo there
# make mutation   change the arithmetic one operator at a time, see that a test notices: docs/mutation.md
# make coverage   which lines `make test` runs
# make campaign   try thousands of hostile files, and write what became of them to docs/security.md
# make site   build the documents as a site, strictly: site/index.html
# make lint   ruff and mypy --strict

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SIDE_BY_SIDE := -n auto --dist worksteal  # each worker takes what the others have not begun

.PHONY: demo check test test-devices coverage mutation wheel-demo campaign qat-report site lint format clean

demo: $(VENV)/installed
	$(BIN)/stage2 demo --out bundle

check: $(VENV)/installed
	$(BIN)/pytest $(SIDE_BY_SIDE) -m quick

test: $(VENV)/installed
	$(BIN)/pytest $(SIDE_BY_SIDE) -m "not device" --durations=20

test-devices: $(VENV)/installed
	$(BIN)/pytest $(SIDE_BY_SIDE) -m device --durations=20

coverage: $(VENV)/installed
	$(BIN)/pytest $(SIDE_BY_SIDE) -m "not device" --cov --cov-report=term:skip-covered

mutation: $(VENV)/installed
	$(BIN)/python tests/mutation.py

wheel-demo: $(VENV)/installed
	$(BIN)/python tests/wheel.py

campaign: $(VENV)/installed
	$(BIN)/python tests/campaign

qat-report: $(VENV)/installed
	$(BIN)/stage2 qat-report --out benchmarks/qat.json

site: $(VENV)/installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	MYPYPATH=src $(BIN)/mypy -p litehrnet_stage2

format: $(VENV)/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# torch first and exactly: left to the resolver, another package may bring a build that is gigabytes larger.
$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) build bundle site
