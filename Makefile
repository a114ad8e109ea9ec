# Two commands set everything up on a machine with only Python and make: `make demo` and `make test`.
PYTHON ?= python3
export PYTHON
ENV := .venv/.installed

.PHONY: help demo test lint format docs bench interop deepmd clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F '|' '{ printf "%-16s %s\n", $$1, $$2 }'

demo: $(ENV) ## the life of a large atomistic model in miniature; writes run/report.html
	.venv/bin/lamella demo

test: $(ENV) ## style, types and tests
	scripts/lint
	scripts/test

lint: $(ENV) ## style and types
	scripts/lint

format: $(ENV) ## write the style that lint asks for
	scripts/format

docs: $(ENV) ## build the documentation into site/
	scripts/docs

bench: $(ENV) ## time lamella, beside deepmd-kit where `make deepmd` has installed it
	scripts/bench

interop: $(ENV) .envs/deepmd/.installed ## check with deepmd-kit itself that models pass to it and back unchanged (5 min)
	scripts/interop

deepmd: .envs/deepmd/.installed ## install deepmd-kit 3.2.0 in .envs/deepmd, for `make bench` and `make interop` (several GB)

clean: ## remove caches and built pages; environments and runs stay
	rm -rf site build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests scripts -name __pycache__ -type d -prune -exec rm -rf {} +

$(ENV): pyproject.toml constraints.txt scripts/setup
	@scripts/setup

.envs/deepmd/.installed: scripts/setup_deepmd
	scripts/setup_deepmd
