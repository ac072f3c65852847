# make demo   answers a question about a photo           make test   runs the test suite
# make lint   style and types                            make clean  removes the environments
# make test-slow, test-oldest, test-lmms, test-vllm: further tests, each described below
#
# Each makes .venv where it is missing and installs igva with every extra that shares its versions.

PYTHON ?= python3
BIN := .venv/bin
OLDEST := .venv-oldest/bin
LMMS := .venv-lmms/bin
VLLM := .venv-vllm/bin
TORCH := $(shell grep '^torch==' constraints.txt)
# Bytecode is made of what is imported, when it is imported.
PIP_QUIET := -q --disable-pip-version-check --no-compile
# One process per core; a file's tests stay together, since they share what is slow to make.
PARALLEL := -n auto --dist loadfile

.PHONY: demo test test-slow test-oldest test-lmms test-vllm lint clean

demo: .venv/.ready
	$(BIN)/igva ask examples/chelsea.png "What animal is this?" --plot demo.png
	@echo && echo "The same as a picture: demo.png"

test: .venv/.ready
	$(BIN)/igva models fetch tiny
	$(BIN)/python -m pytest $(PARALLEL) -m "not slow and not gpu"

# What takes more than 20 s each: memory planned beside memory measured, whole evaluations, sweeps for leaks.
test-slow: .venv/.ready
	$(BIN)/igva models fetch tiny
	$(BIN)/python -m pytest $(PARALLEL) -m "slow and not gpu"

# The oldest transformers that is supported: the behaviours that depend on it.
test-oldest: .venv-oldest/.ready
	$(OLDEST)/python -m pytest $(PARALLEL) -m "not slow and not gpu" tests/contract tests/invariants tests/model tests/checkpoints \
		tests/data tests/train/test_run.py

# Public benchmarks through lmms-eval, offline, on hand-made rows.
test-lmms: .venv-lmms/.ready
	$(LMMS)/python -m pytest tests/eval/test_lmms.py --timeout 1200

# vLLM beside generate, on the CPU: the same answers from the same checkpoint.
test-vllm: .venv-vllm/.ready
	$(VLLM)/igva models fetch tiny
	$(VLLM)/python -m pytest tests/serve/test_vllm.py tests/serve/test_vllm_ensemble.py \
		tests/serve/test_vllm_export.py tests/serve/test_vllm_server.py

lint: .venv/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv .venv-oldest .venv-lmms .venv-vllm

# torch first and by its exact version: without one installed, other packages would choose theirs.
.venv/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install $(PIP_QUIET) "$(TORCH)"
	$(BIN)/python -m pip install $(PIP_QUIET) -c constraints.txt -e '.[embedded,train,data,quantize,plot,study,serve,ray,clients,dev]'
	DS_BUILD_OPS=0 $(BIN)/python -m pip install $(PIP_QUIET) -c constraints.txt --no-build-isolation -e '.[deepspeed]'
	touch $@

.venv-oldest/.ready: pyproject.toml constraints-oldest.txt
	$(PYTHON) -m venv .venv-oldest
	$(OLDEST)/python -m pip install $(PIP_QUIET) "$(TORCH)"
	$(OLDEST)/python -m pip install $(PIP_QUIET) -c constraints-oldest.txt -e '.[embedded,train,data,study]' pytest pytest-timeout pytest-xdist
	touch $@

# Without what its packages ask for: torchvision must be built for the very torch that is there, and is not needed.
.venv-lmms/.ready: pyproject.toml constraints-lmms.txt
	$(PYTHON) -m venv .venv-lmms
	$(LMMS)/python -m pip install $(PIP_QUIET) "$(TORCH)"
	$(LMMS)/python -m pip install $(PIP_QUIET) --no-deps -r constraints-lmms.txt
	$(LMMS)/python -m pip install $(PIP_QUIET) --no-deps -e .
	touch $@

# As above: vLLM would bring torchvision, torchaudio and torchcodec, which must fit the very torch that is there.
.venv-vllm/.ready: pyproject.toml constraints-vllm.txt
	$(PYTHON) -m venv .venv-vllm
	$(VLLM)/python -m pip install $(PIP_QUIET) "$(TORCH)"
	$(VLLM)/python -m pip install $(PIP_QUIET) --no-deps -r constraints-vllm.txt
	$(VLLM)/python -m pip install $(PIP_QUIET) --no-deps -e .
	touch $@
