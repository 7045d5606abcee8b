# The commands of this project. `make demo` and `make test` set up all that they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PHOTOS ?=
# What the tests train with. Where the plain package is the large one for GPUs, name another here.
TORCH ?= torch==2.13.0
DETECTOR ?= $(wildcard ../shared/data/weights/yolox_nano.onnx)

APT_INSTALL := [ "$$(id -u)" = 0 ] && apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq

.PHONY: demo test test-quick lint types format clean

demo: export VISTADEX_MODELS := $(CURDIR)/.demo/models
demo: export VISTADEX_CATALOG := $(CURDIR)/.demo/catalog.db
demo: export VISTADEX_CACHE := $(CURDIR)/.demo/cache
demo: $(VENV)/.installed-demo  ## index photographs (PHOTOS=folder, DETECTOR=file.onnx) and serve them
	@mkdir -p .demo/photos && rm -rf .demo/catalog.db* .demo/models
	@test -n "$(DETECTOR)" || $(BIN)/vistadex models pull yolox_nano --name demo-detector --dynamic-size --optimize \
	  || { echo "then say: make demo DETECTOR=yolox_nano.onnx"; exit 2; }
	@test -z "$(DETECTOR)" || $(BIN)/vistadex models add "$(DETECTOR)" --name demo-detector --dynamic-size --optimize \
	  || $(BIN)/vistadex models add "$(DETECTOR)" --name demo-detector
	@test -n "$(PHOTOS)" || find $(VENV)/lib/*/site-packages/skimage/data $(VENV)/lib/*/site-packages/sklearn/datasets/images \
	  \( -name '*.jpg' -o -name '*.png' \) -exec cp {} .demo/photos/ \;
	$(BIN)/vistadex index "$(or $(PHOTOS),.demo/photos)" --detector demo-detector
	$(BIN)/vistadex classes
	$(BIN)/vistadex serve

test: $(VENV)/.installed-dev $(VENV)/.debian $(VENV)/.azurite  ## every test
	$(BIN)/pytest -n 2 --database=all

test-quick: $(VENV)/.installed-dev $(VENV)/.azurite  ## the tests that take a few minutes in all
	$(BIN)/pytest -n 2 -m "not slow"

lint: $(VENV)/.installed-dev  ## ruff, and the form of the code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev  ## mypy, strict
	$(BIN)/mypy

format: $(VENV)/.installed-dev  ## put the code into form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove what the other commands have made
	rm -rf $(VENV) .demo build dist *.egg-info

$(VENV)/.installed-%: pyproject.toml
	@test -x $(BIN)/pip || $(PYTHON) -m venv --clear $(VENV) \
	  || { $(APT_INSTALL) python3-venv && $(PYTHON) -m venv --clear $(VENV); } \
	  || { rm -rf $(VENV); echo "Python's venv is missing; on Debian: apt-get install python3-venv"; exit 2; }
	@test "$*" != dev || $(BIN)/python -m pip install --quiet $(TORCH)
	$(BIN)/python -m pip install --quiet --editable ".[$*]"
	touch $@

# Debian's Chromium for the browser tests and the database servers, where this user may install them; else
# what needs them is skipped by name. The tests start servers of their own: Debian's own are not started.
$(VENV)/.debian:
	@command -v chromium >/dev/null || { $(APT_INSTALL) chromium >/dev/null; } || true
	@still=/usr/sbin/policy-rc.d; own=; trap 'rm -f $$own' EXIT; \
	  [ "$$(id -u)" != 0 ] || [ -e $$still ] || { own=$$still; printf '#!/bin/sh\nexit 101\n' > $$still && chmod +x $$still; }; \
	  ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || { $(APT_INSTALL) --no-install-recommends postgresql >/dev/null; } || true; \
	  command -v mariadbd >/dev/null || { $(APT_INSTALL) --no-install-recommends mariadb-server >/dev/null; } || true
	touch $@

# Azure's own storage emulator for the tests, where npm is there; else they are skipped by name.
$(VENV)/.azurite: $(VENV)/.installed-dev
	@command -v npm >/dev/null || { $(APT_INSTALL) npm >/dev/null; } || true
	@timeout 180 npm install --prefix $(VENV)/node --no-audit --no-fund --loglevel=error --fetch-retries=1 azurite@3.37.0 \
	  >/dev/null 2>&1 || echo "Azurite could not be installed (npm): the tests of Azure will be skipped, by name"
	touch $@
