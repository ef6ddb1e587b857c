# Every target sets itself up: a virtual environment in .venv with the pinned, hashed versions.
VENV   ?= .venv
PYTHON ?= python3
JOBS   ?= 2
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

comma := ,

.PHONY: demo test unit check format lock clean faults soak bench sim

demo: $(READY)
	$(BIN)/outrider demo $(DEMO_ARGS)

# In JOBS processes; those that start whole networks stay behind each other (tests/conftest.py).
test: $(READY)
	$(BIN)/pytest -n $(JOBS) --dist loadgroup

# Every fault, one at a time, against two real networks: about half an hour. Onward over three: --matrix onward.
faults: $(READY)
	$(BIN)/python -m outrider.demo.faults --matrix full $(FAULTS_ARGS)

# Journeys over three networks with random faults for as long as told: make soak SOAK_ARGS="--minutes 60 --report soak.json"
soak: $(READY)
	$(BIN)/python -m outrider.demo.soak $(SOAK_ARGS)

unit: $(READY)
	$(BIN)/pytest -n $(JOBS) --dist loadgroup -m "not slow"

check: $(READY)
	$(BIN)/ruff format --check src tests examples
	$(BIN)/ruff check src tests examples
	$(BIN)/mypy
	$(BIN)/lint-imports

# Whole hosts in a simulated world, for as long as told: make sim SIM_ARGS="--minutes 10"
sim: $(READY)
	$(BIN)/outrider sim run $(or $(SIM_ARGS),--minutes 1)

bench: $(READY)
	$(BIN)/outrider bench relocation $(or $(BENCH_ARGS),--contexts 10000$(comma)100000$(comma)1000000 --writes 5000 --report bench.json)

format: $(READY)
	$(BIN)/ruff format src tests examples
	$(BIN)/ruff check --fix src tests examples

# Pin every dependency with hashes; the file names no registry.
lock:
	uv pip compile pyproject.toml --extra dev --extra bench --universal --python-version 3.11 \
	  --generate-hashes --no-emit-index-url --no-header -q -o requirements.txt

$(READY): requirements.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Outrider needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

clean:
	rm -rf $(VENV) out run
