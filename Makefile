# Everything happens in a virtual environment in the checkout, made on first use; see CONTRIBUTING.md.
#   PYTHON  the interpreter it is made with           make test PYTHON=python3.12
#   VENV    where it is                               make test VENV=.venv-3.12
#   ARGS    further arguments of the command run      make test ARGS="-k softmax"
#   WITH    torch: test with PyTorch, where it comes  make test WITH=torch
#   SYSTEM  no: install nothing with apt-get          make test SYSTEM=no
#   TIER    kernels, package or project: only these   make test TIER=kernels

PYTHON ?= python3
VENV   ?= .venv
ARGS   ?=
WITH   ?=
SYSTEM ?= yes
export SYSTEM
TIER   ?=

python := $(VENV)/bin/python
pip    := $(python) -m pip --quiet
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: help build demo test bench lint docs peers clean distclean data with-torch FORCE \
    fuzz soak asan tsan test-arm test-oldest test-free-threaded wheel cross
.DELETE_ON_ERROR:

help:
	@echo "make demo       train on Fashion-MNIST; the model and its pictures are written to demo/"
	@echo "make test       run the tests; TIER=kernels, package or project: a part of them"
	@echo "make bench      measure every kernel against NumPy and whatever else is installed"
	@echo "make docs       make the site of the documentation in build/docs/"
	@echo "make lint       check style, types and the stub of the compiled module"
	@echo "make fuzz       random calls of the kernels, ARGS=\"--calls 1000000\" of them"
	@echo "make soak       kills, forks, Ctrl-C and memory, a thousand or a million times"
	@echo "make asan       test the kernels on a build with GCC's sanitizer of memory; tsan: of threads"
	@echo "make test-arm   test the kernels on aarch64, emulated (Debian 12 on x86-64)"
	@echo "make test-oldest         with the oldest packages that are allowed"
	@echo "make test-free-threaded  on CPython without the global interpreter lock"
	@echo "make wheel      a wheel for glibc 2.28 and newer, audited and tested in an empty environment"
	@echo "make cross      compile the C sources for Windows, macOS and musl"
	@echo "make build      compile the kernels and install the package in place"
	@echo "make peers      install SciPy, scikit-learn, PyTorch and JAX, for make bench"
	@echo "make clean      remove what was built, measured and trained; distclean: $(VENV) too"

demo: $(VENV)/.built data
	$(python) -m softmax_ext train --epochs 10 --batch-size 256 --learning-rate 0.1 \
	    --model-out demo/model.npz --report demo/report $(ARGS)

test: $(VENV)/.test-tools data $(WITH:%=with-%)
	$(python) -m pytest --quiet $(TIER:%=--tier=%) $(ARGS)

bench: $(VENV)/.test-tools data
	$(python) bench/table.py $(ARGS)

fuzz: $(VENV)/.test-tools
	$(python) tests/fuzz/random_calls.py $(ARGS)

soak: $(VENV)/.test-tools
	$(python) tests/fuzz/soak.py $(ARGS)

# Need GCC. ARGS: what Python runs instead, ARGS="tests/fuzz/random_calls.py --calls 10000".
asan: $(VENV)/.test-tools
	PYTHON=$(python) tools/sanitized.sh address $(ARGS)

tsan: $(VENV)/.test-tools
	PYTHON=$(python) tools/sanitized.sh thread $(ARGS)

test-arm: $(VENV)/.made
	PYTHON=$(python) tools/test_arm.sh $(ARGS)

# PYTHON: another interpreter than the newest that will do.
test-oldest:
	PYTHON=$(if $(filter file,$(origin PYTHON)),python3.11,$(PYTHON)) WITH=$(WITH) tools/test_oldest.sh $(ARGS)

test-free-threaded:
	PYTHON=$(if $(filter file,$(origin PYTHON)),,$(PYTHON)) tools/test_free_threaded.sh $(ARGS)

wheel:
	PYTHON='$(PYTHON)' tools/wheel.sh $(ARGS)

# ARGS: targets of ziglang, ARGS="aarch64-windows-gnu".
cross: $(VENV)/.built
	$(pip) install ziglang
	$(python) tools/cross_compile.py $(ARGS)

lint: $(VENV)/.lint-tools
	$(python) -m ruff check .
	$(python) -m ruff format --check .
	$(python) -m mypy
	$(python) -m mypy.stubtest --mypy-config-file pyproject.toml \
	    --allowlist tools/stubtest_allowlist.txt softmax_ext._kernels softmax_ext._descent
	tools/check_committed.sh

# The notebooks run in the course of it; warnings are errors.
docs: $(VENV)/.docs-tools data
	PATH="$(abspath $(VENV))/bin:$$PATH" $(python) -m sphinx --quiet --fail-on-warning --keep-going \
	    --builder html docs build/docs/html $(ARGS)
	@echo "file://$(CURDIR)/build/docs/html/index.html"

build: $(VENV)/.built

peers: $(VENV)/.built
	$(pip) install --no-build-isolation --editable '.[cli,peers]'

data: $(VENV)/.built
	@tools/get_data.sh $(python)

with-torch: $(VENV)/.built
	@tools/get_torch.sh $(python)

clean:
	rm -rf build dist *.egg-info demo bench/results
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	rm -f softmax_ext/*.so $(VENV)/.built
	find softmax_ext tests bench -name __pycache__ -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV)

# What is installed in the environment, one stamp each: the package in place with what the command
# line needs, then what the tests need, then what lint needs.

$(VENV)/.made: FORCE
	@tools/make_venv.sh '$(PYTHON)' '$(VENV)'

$(VENV)/.built: $(VENV)/.made pyproject.toml setup.py \
    $(wildcard src/*.c src/*.h src/*.inc softmax_ext/*.pyx softmax_ext/*.px[di])
	$(pip) install 'pip>=25.1'
	$(pip) install --group build
	PYTHONWARNINGS='ignore:Editable installation' \
	    $(pip) install --no-build-isolation --editable '.[cli]'
	@touch $@

$(VENV)/.test-tools: $(VENV)/.built
	$(pip) install --group test
	@touch $@

$(VENV)/.lint-tools: $(VENV)/.built
	$(pip) install --group lint
	@touch $@

$(VENV)/.docs-tools: $(VENV)/.built
	$(pip) install --group docs
	@touch $@
