# refclock: `make run` shows a simulated stratum-1 server, `make test` proves it. Both set everything up first.
VENV   := .venv
PY     := $(VENV)/bin/python
STAMP  := $(VENV)/.ready
NTP    ?= 127.0.0.1:11123
SEEDS  ?= --seeds 5 --first-seed 800
PEERS  := chrony gpsd gpsd-clients pps-tools ntpsec-ntpdig ntpsec-ntpdate iproute2 clang tmux
# What the two commands need from the system: a C compiler, Python with venv and headers, nettle (symmetric keys).
BUILD  := gcc make python3 python3-venv python3-dev nettle-dev tzdata

.PHONY: run test test-fast check digest bench bench-server bench-clock bench-cost bench-temperature bench-beside sim fuzz cross clean setup peers

setup: $(STAMP)

$(STAMP): pyproject.toml setup.py constraints.txt native/build.py $(wildcard native/*.c native/*.h) $(wildcard hw-sim/*.c) image/setup.sh
	@sh image/setup.sh build $(BUILD)
	@sh image/setup.sh venv $(VENV)
	@touch $@

peers:
	@sh image/setup.sh peers $(PEERS)

run: setup
	@exec $(VENV)/bin/refclock run --sim --ntp $(NTP)

# Whatever is not held to the wall clock runs side by side on all processors; the rest one by one.
test: setup peers
	$(PY) -m pytest -n logical -m 'not realtime and not peers'
	$(PY) -m pytest -m 'realtime or peers'

test-fast: setup
	$(PY) -m pytest -n logical -m pure

check: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

sim: setup
	@set -e; for f in hw-sim/scenarios/*.toml hw-sim/scenarios/*/*.toml; do $(VENV)/bin/refclock sim $$f; done

# Whether a change left the behaviour alone: `make digest > before`, change something, `make digest AGAINST=before`.
digest: setup
	@$(PY) tests/bench/digest.py $(if $(AGAINST),--against $(AGAINST))

bench: setup peers
	$(PY) tests/bench/footprint.py
	$(PY) tests/bench/decoding.py

bench-server: setup peers
	@mkdir -p build/bench
	$(CC) -std=gnu11 -O2 -Wall -Wextra -Werror -o build/bench/ntpload tests/bench/ntpload.c -lnettle
	$(CC) -std=gnu11 -O2 -Wall -Wextra -Werror -o build/bench/udpceiling tests/bench/udpceiling.c
	$(PY) tests/bench/server.py

bench-clock: setup
	$(PY) tests/bench/clock.py $(SEEDS) --keep

# What a sample and a second of messages cost, beside another checkout: make bench-cost AGAINST=DIRECTORY
bench-cost: setup
	$(PY) tests/bench/cost.py $(if $(AGAINST),--against $(AGAINST))

bench-temperature: setup
	$(PY) tests/bench/temperature.py $(SEEDS) --keep

bench-beside: setup peers
	@test -n "$(CLKNETSIM)" || { echo 'make bench-beside CLKNETSIM=DIRECTORY: where mlichvar/clknetsim was built'; exit 64; }
	$(PY) tests/bench/beside.py $(CLKNETSIM) --keep

fuzz: setup peers
	$(MAKE) -C native fuzz

# The C core's tests as built for ARMv6, ARMv7, ARM64 and i686, under an emulator.
cross:
	@sh image/cross.sh
	$(MAKE) -C native -j$$(nproc) cross

clean:
	rm -rf build $(VENV) *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find refclock ppsd hw-sim -name '*.so' -delete
	find . -name __pycache__ -prune -exec rm -rf {} +
