# Everything a newcomer needs: make demo, make test. Both create and reuse .venv.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
BIN := .venv/bin
DEMO := demo
# Tests run side by side; on a larger machine: make test JOBS=8
JOBS := 2
# The threads of BLAS and OpenMP would wait for each other, and for the other tests.
PYTEST := OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(JOBS) --dist worksteal --durations 40 --durations-min 5

# What runs the benchmarks on a GPU: a Python with jax[cuda], and torch and transformers for the
# peers. Nothing is installed there; BENCH_GPU holds options of train_step.py, such as cases.
PYTHON_GPU ?= $(shell test -x $(BIN)/python && echo $(BIN)/python || echo python3)
BENCH_GPU ?=
GPU_OUT ?= benchmarks/results

.PHONY: install demo test test-fast lint bench bench-gpu lock clean

install: .venv/.installed

.venv/.installed: requirements.lock setup.cfg pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' || \
	  { echo "Python 3.11 or 3.12 is needed; set PYTHON=/path/to/it" >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $@

# Simulated genome -> dataset -> trained model -> probe -> report.html; no network after install.
demo: install
	$(BIN)/python -m data_pipelines.simulate --out $(DEMO)/simulated
	$(BIN)/nt-jax data build fasta --fasta $(DEMO)/simulated/genome.fa --out $(DEMO)/dataset \
	  --recipe window=1536,stride=768,jitter=0 --validation chr5 --test chr6 --kind simulated
	$(BIN)/nt-jax pretrain experiments/demo.py --data $(DEMO)/dataset --workdir $(DEMO)/run
	$(BIN)/nt-jax probe --checkpoint $(DEMO)/run --task $(DEMO)/simulated/tasks/promoters \
	  --out $(DEMO)/run/probe --max-sequences 600
	$(BIN)/nt-jax report $(DEMO)/run
	@printf '\nSimulated data, so the numbers say nothing about real genomes.\n'
	@printf '  look at   $(DEMO)/run/report.html\n'
	@printf '  go on     $(BIN)/nt-jax data build fasta --fasta YOUR.fa.gz --out mydata --recipe window=1536,stride=1536,jitter=0\n'
	@printf '            $(BIN)/nt-jax pretrain nt_v2_nano --data mydata --workdir myrun\n'

test: install
	$(PYTEST)

test-fast: install
	$(PYTEST) -m "not slow"

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: install
	$(BIN)/python benchmarks/tokenizer.py
	$(BIN)/python benchmarks/loader.py
	$(BIN)/python benchmarks/train_step.py
	$(BIN)/python benchmarks/embedding.py

# One GPU, under ten minutes: what there is no time for is named, tables are written as they come.
bench-gpu:
	failed=0; \
	$(PYTHON_GPU) benchmarks/kernels_gpu.py --out $(GPU_OUT) || failed=1; \
	$(PYTHON_GPU) benchmarks/train_step.py --gpu --seconds 320 --out $(GPU_OUT) $(BENCH_GPU) || failed=1; \
	$(PYTHON_GPU) benchmarks/embedding.py --gpu --seconds 100 --out $(GPU_OUT) || failed=1; \
	$(PYTHON_GPU) benchmarks/plan_gpu.py --seconds 60 --out $(GPU_OUT)/plan_gpu.json || failed=1; \
	exit $$failed

# Rewrites the lock from the newest versions that setup.cfg allows.
lock:
	rm -rf .venv-lock && $(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --quiet torch==2.13.0
	.venv-lock/bin/python -m pip install --quiet -e '.[export,plan,umap,beam,dev]'
	{ echo "# Everything that make install puts into .venv, pinned. Made by: make lock"; \
	  .venv-lock/bin/python -m pip freeze --exclude-editable | sed 's/+cpu//'; } > requirements.lock
	rm -rf .venv-lock

clean:
	rm -rf $(DEMO)
