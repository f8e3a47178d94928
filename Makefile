# make run    reproduce INFERNO's Table 1 (laptop scale, minutes on two cores)
# make test   every check of the project
# make gpu    numbers, times and papers on a GPU beside the CPU, within eight minutes; DEVICE=cpu tests the check itself
# Both create .venv with $(PYTHON) if it is absent; to choose another Python: make run PYTHON=python3.12
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUT ?= .

.PHONY: run test gpu readme clean
.DELETE_ON_ERROR:

run: $(VENV)/run.stamp
	$(BIN)/hepinf run inferno --scale laptop

# One torch thread per process: two notebooks run side by side, and sums do not depend on the number of cores.
test: $(VENV)/dev.stamp
	$(BIN)/ruff check nbs tests
	$(BIN)/ruff format --check nbs tests
	OMP_NUM_THREADS=1 $(BIN)/nbdev_test --n_workers 2 --timing
	$(BIN)/pytest

DEVICE ?= cuda
gpu: $(VENV)/run.stamp
	$(BIN)/hepinf check-device --device $(DEVICE) -o device_check.json

# README.md is nbs/index.ipynb, executed, without the cells that only show results; its figures stay in nbs/images.
readme:
	@$(BIN)/jupyter nbconvert --log-level WARN --to markdown --execute nbs/index.ipynb --output-dir $(OUT) --output README \
		--TagRemovePreprocessor.enabled=True --TagRemovePreprocessor.remove_input_tags=remove-input
	@sed -E -i.bak 's#\]\((images/|papers/|tutorials/|[0-9]{2}_[a-z]+/)#](nbs/\1#g' $(OUT)/README.md && rm $(OUT)/README.md.bak

# The stamps make a second call install nothing; dev contains run.
SETUP := settings.ini setup.py pyproject.toml constraints.txt

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "hepinf needs Python 3.11 or newer, and '$(PYTHON)' is not; name one: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/run.stamp: $(SETUP) | $(BIN)/pip
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[run]'
	@touch $@

$(VENV)/dev.stamp: $(SETUP) | $(BIN)/pip
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(VENV)/run.stamp $@

clean:
	rm -rf $(VENV) _proc _docs build dist *.egg-info
