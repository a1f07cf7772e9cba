# `make test` needs Python 3.11 or later with pip, and make; it brings the rest.

PYTHON ?= python3
VENV := .venv
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
RUN := $(VENV)/ready-run-$(VERSION)
TEST := $(VENV)/ready-test-$(VERSION)
BIN := $(VENV)/bin
DEMO_AND_TEST := demo,test

.DEFAULT_GOAL := help
.PHONY: help test run soak mutants bench format programs clean

help: ## list these commands
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST)

test: programs $(TEST) ## set up what is missing and run the gate
	@$(BIN)/python -m eventjobs.tools.check

run: $(RUN) ## start the service with its demo jobs
	@$(BIN)/eventjobs serve --demo

soak: $(TEST) ## look for broken promises, under load and faults
	@$(BIN)/python -m eventjobs.tools.soak $(ARGS)

mutants: $(TEST) ## change the code a little, and see whether a test fails
	@$(BIN)/python -m eventjobs.tools.mutants $(ARGS)

bench: $(RUN) ## measure this machine against the floors
	@$(BIN)/python -m eventjobs.tools.bench $(ARGS)

format: $(TEST) ## format the code and mend what ruff can
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

clean: ## remove what make and the tools made
	rm -rf $(VENV) build *.egg-info .*_cache .hypothesis

# Made from nothing and marked at the very end: half a venv never looks finished. Its pip comes from
# the index like the rest: Debian's Python has no ensurepip without yet another package.
define setup
	@echo "setting up $(VENV): Python $(VERSION), eventjobs[$(1)]"
	@$(PYTHON) -m venv --clear --without-pip $(VENV)
	@$(PYTHON) -m pip --python $(BIN)/python --quiet --quiet --disable-pip-version-check \
		install pip --editable '.[$(1)]'
endef

$(RUN): pyproject.toml Makefile
	$(call setup,demo)
	@touch $@

$(TEST): pyproject.toml Makefile
	$(call setup,$(DEMO_AND_TEST))
	@touch $(RUN) $@

# What tests run besides Python: a browser, a worker in another language, faults, HTTP load,
# a client of Redis, a proxy.
# Where there is systemd, the package of nginx would start a server on port 80.
programs:
	@exec >/dev/null; missing=; \
	command -v chromium || command -v chromium-browser || command -v google-chrome || missing="chromium"; \
	command -v node || missing="$$missing nodejs"; \
	command -v strace || missing="$$missing strace"; \
	command -v wrk || missing="$$missing wrk"; \
	command -v redis-cli || missing="$$missing redis-tools"; \
	[ -d /run/systemd/system ] || [ -x /usr/sbin/nginx ] || command -v nginx || missing="$$missing nginx-light"; \
	[ -n "$$missing" ] || exit 0; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get; then \
		echo "installing $$missing"  >&2; \
		apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq --yes \
			--no-install-recommends install $$missing && exit 0; \
	fi; \
	echo "missing: $$missing; without them some tests are skipped, and fail in CI" >&2; \
	[ "$$CI" != true ]
