# One verb per wish. Each target first installs what it needs (tools/bootstrap.py: python3, make and git are enough) and
# ends with an error when it could not do what it is for. `make` alone lists them: the comment beside a target is its help.

STACK ?= dev
PYTHON ?= python3
ARGS ?=
RUNS ?= 2000
FAULTS ?= 500
SEED ?=

# Taken from the command line into the environment of what runs below.
export SHOW_SECRETS URL

BOOTSTRAP := $(PYTHON) tools/bootstrap.py run
WITH_PULUMI := $(BOOTSTRAP) --pulumi

.DEFAULT_GOAL := help

help: ## List the targets
	@awk 'BEGIN { FS = ":.*## " } /^[a-z][a-z-]*:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo; echo "  STACK=dev|canary|prod chooses the stack, ARGS=… goes to the program behind the target."

##@ Run it

up: ## Bring the stack up through Pulumi; prints the URLs and a line to try (STACK=dev)
	@$(WITH_PULUMI) python -m tools.stack --stack '$(STACK)' up

down: ## Take the stack down; nothing is left behind (STACK=dev)
	@$(WITH_PULUMI) python -m tools.stack --stack '$(STACK)' down

outputs: ## Print the stack's outputs as one JSON object (`make -s outputs`; SHOW_SECRETS=1 with the key)
	@$(WITH_PULUMI) python -m tools.stack --stack '$(STACK)' outputs

preview: ## Show what `make up` would change (STACK=dev)
	@$(WITH_PULUMI) python -m tools.stack --stack '$(STACK)' preview

refresh: ## Compare the stack's state with what really runs (STACK=dev)
	@$(WITH_PULUMI) python -m tools.stack --stack '$(STACK)' refresh

verify: ## Ask the running stack whether it is ready, and one question (STACK=dev)
	@$(WITH_PULUMI) python -m tools.stack --stack '$(STACK)' verify

slipway: ## Look at the running stack's runs, threads and queue, and mend them (ARGS="runs list")
	@$(BOOTSTRAP) python -m tools.stack --stack '$(STACK)' slipway $(ARGS)

pulumi: ## Any Pulumi command with this stack's environment (ARGS="config set slipway:key value")
	@$(WITH_PULUMI) python -m tools.stack --stack '$(STACK)' pulumi $(ARGS)

##@ Judge it

test: ## Unit, integration and infrastructure tests (ARGS go to pytest)
	@$(WITH_PULUMI) --aimock python -m pytest $(ARGS)

check: ## Lint, format, types, import rules, lock file
	@$(BOOTSTRAP) ruff check
	@$(BOOTSTRAP) ruff format --check
	@$(BOOTSTRAP) mypy --strict
	@$(BOOTSTRAP) lint-imports
	@$(BOOTSTRAP) uv lock --check

evaluate: ## Ask the data sets' questions, grade, report (STACK=dev, or URL=… with SLIPWAY_API_KEY; ARGS)
	@$(WITH_PULUMI) python -m tools.stack --stack '$(STACK)' evaluate $(ARGS)

bench: ## Measure, and write docs/benchmarks.md (ARGS: names of sections)
	@$(WITH_PULUMI) --aimock python -m tests.benchmarks $(ARGS)

chaos: ## Kill, freeze and cut off a running service, and judge the whole history (RUNS=2000 FAULTS=500 SEED=…)
	@$(BOOTSTRAP) python -m tests.chaos --runs '$(RUNS)' --faults '$(FAULTS)' $(if $(SEED),--seed '$(SEED)') $(ARGS)

##@ Work on it

format: ## Format the code and mend what the linter can
	@$(BOOTSTRAP) ruff format
	@$(BOOTSTRAP) ruff check --fix

clean: ## Remove what can be made again: environment, caches, reports (stacks and their data stay)
	@rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis reports
	@find . -name __pycache__ -type d -not -path './.slipway/*' -prune -exec rm -rf {} +

.PHONY: help up down outputs preview refresh verify slipway pulumi test check evaluate bench chaos format clean
