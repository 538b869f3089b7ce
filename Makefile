# refclock: `make run` shows a simulated stratum-1 server, `make test` proves it. Both set everything up first.
VENV   := .venv
PY     := $(VENV)/bin/python
STAMP  := $(VENV)/.ready
TOOLS  := $(VENV)/.ready-tools
MADE_OF = pyproject.toml setup.py constraints.txt native/build.py $(wildcard native/*.c native/*.h) $(wildcard hw-sim/*.c) image/setup.sh
NTP    ?= 127.0.0.1:11123
SEEDS  ?= --seeds 5 --first-seed 800
DEBS   ?= amd64 arm64 armhf
IMAGES ?= amd64 arm64
PEERS  := systemd nftables libseccomp2 chrony gpsd gpsd-clients pps-tools ntpsec-ntpdig ntpsec-ntpdate iproute2 iptables ufw dnsmasq-base busybox clang tmux zsh fish groff-base mmdebstrap \
	prometheus ntpsec-ntpviz gnuplot-nox lintian qemu-user cpio rauc squashfs-tools fdisk grub-common zstd mtools device-tree-compiler
EMULATORS := qemu-system-x86 qemu-system-arm ovmf openssh-client
# What the two commands need from the system: a C compiler, Python with venv and headers, nettle (symmetric keys).
BUILD  := gcc make python3 python3-venv python3-dev nettle-dev tzdata

.PHONY: run test test-vm test-fast check digest bench bench-server bench-nts bench-clock bench-cost bench-temperature bench-history bench-beside sim manual wheel deb image image-lock image-compare update fuzz cross clean setup develop peers emulators bench-upstreams

# To run it, and to work on it: the second adds linter, type checker and test runner (110 MB).
setup: $(STAMP)
develop: $(TOOLS)

# The stamps name the directory that they were made in. When it was moved or copied, everything is set up anew.
ifneq ($(shell cat $(STAMP) 2>/dev/null),$(CURDIR))
.PHONY: $(STAMP)
endif
ifneq ($(shell cat $(TOOLS) 2>/dev/null),$(CURDIR))
.PHONY: $(TOOLS)
endif

$(STAMP): $(MADE_OF)
	@sh image/setup.sh build $(BUILD)
	@sh image/setup.sh venv $(VENV)
	@pwd -P > $@

$(TOOLS): $(MADE_OF)
	@sh image/setup.sh build $(BUILD)
	@sh image/setup.sh venv $(VENV) dev
	@pwd -P | tee $@ > $(STAMP)

peers:
	@sh image/setup.sh peers $(PEERS)

emulators:
	@sh image/setup.sh peers $(EMULATORS)

run: setup
	@exec $(VENV)/bin/refclock run --sim --ntp $(NTP)

# What computes runs side by side on all processors; programs of others mostly wait, so more of them than processors; what is held to the
# wall clock runs alone; then the appliance's images in emulated computers, by the names of the files: the longest trial is the first.
test: develop peers emulators
	$(PY) -m pytest -n logical -m 'not realtime and not peers and not vm'
	$(PY) -m pytest -n 3 --dist worksteal -m 'peers and not realtime and not vm'
	$(PY) -m pytest -m 'realtime and not vm'
	$(PY) -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m 'vm and not long'

# All that is done with the images, before a release: also updates and many power cuts. POWER_CUTS: how many.
test-vm: develop peers emulators
	POWER_CUTS=$(or $(POWER_CUTS),25) $(PY) -m pytest -n 2 --dist loadfile -m vm

test-fast: develop
	$(PY) -m pytest -n logical -m pure

# The same tests with the oldest versions of what refclock depends on, which are Debian bookworm's where it has them.
test-lowest: develop
	$(PY) -m pip install -q --upgrade --target build/lowest $$(sed -n 's/^    "\([a-z0-9-]*\)>=\(.*\)",/\1==\2/p' pyproject.toml)
	PYTHONPATH=build/lowest $(PY) -m pytest -n logical -m pure

check: develop
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

sim: setup
	@set -e; for f in hw-sim/scenarios/*.toml hw-sim/scenarios/*/*.toml; do $(VENV)/bin/refclock sim $$f; done

# Manual pages (man -l build/share/man/man1/refclock.1) and the completions of bash, zsh and fish.
manual: setup
	$(PY) image/manual.py build/share

# Into build/dist: a source distribution, and from it the wheel for this processor and any Python from 3.11 on. It needs libnettle 8.
wheel: develop
	PIP_CONSTRAINT=$(CURDIR)/constraints.txt SOURCE_DATE_EPOCH=$${SOURCE_DATE_EPOCH:-$$(git log -1 --format=%ct)} \
	    $(PY) -m build --outdir build/dist > build/wheel.log 2>&1 || { tail -n 20 build/wheel.log; exit 1; }
	@ls -l build/dist

# Into build/dist: Debian packages for PCs and for Raspberry Pis with a 64-bit or a 32-bit system.
deb: setup
	@sh image/cross.sh packages
	@set -e; export SOURCE_DATE_EPOCH=$${SOURCE_DATE_EPOCH:-$$(git log -1 --format=%ct)}; \
	    for architecture in $(DEBS); do $(PY) image/deb/package.py $$architecture build/dist; done

# Into build/image: what people flash, refclock-VERSION-arm64.img.zst for Raspberry Pis and -amd64 for PCs. It needs neither root nor emulation.
# RENEW=1 (for tests): where the mirror no longer has a locked version, take what it has.
image: setup
	@sh image/cross.sh packages
	$(PY) image/build/image.py $(if $(RENEW),--renew) $(IMAGES)

# The packages of the images as the mirror has them now: image/build/packages-*.lock name each one with its version and checksum.
image-lock: setup
	$(PY) image/build/packages.py build/image

# Whether two builds are the same to the bit: each image is made once more and compared.
image-compare: image
	$(PY) image/build/image.py --compare $(IMAGES)

# Into build/image, beside the images (make image): a signed update of each. UPDATE_KEY and UPDATE_CERT name the key and its certificate (PEM).
# Without them a development key is made in build/keys, and only images that were made beside it believe it.
update: setup peers
	$(PY) image/build/update.py $(IMAGES)

# Whether a change left the behaviour alone: `make digest > before`, change something, `make digest AGAINST=before`.
digest: develop
	@$(PY) tests/bench/digest.py $(if $(AGAINST),--against $(AGAINST))

bench: develop peers
	$(PY) tests/bench/footprint.py
	$(PY) tests/bench/decoding.py

bench-server: develop peers
	@$(MAKE) -s build/bench/ntpload build/bench/udpceiling
	$(PY) tests/bench/server.py

bench-nts: develop peers
	@sh image/setup.sh peers valgrind
	@$(MAKE) -s build/bench/ntpload
	$(PY) tests/bench/nts.py

build/bench/ntpload: tests/bench/ntpload.c native/siv.c native/siv.h native/block.h
build/bench/udpceiling: tests/bench/udpceiling.c
build/bench/%:
	@mkdir -p $(@D)
	$(CC) -std=gnu11 -O2 -Wall -Wextra -Werror -Inative -o $@ $(filter %.c,$^) -lnettle

bench-clock: develop
	$(PY) tests/bench/clock.py $(SEEDS) --keep

# What a sample, a second of messages and a request cost, beside another checkout: make bench-cost AGAINST=DIRECTORY
bench-cost: develop
	@sh image/setup.sh peers valgrind
	$(PY) tests/bench/cost.py $(if $(AGAINST),--against $(AGAINST))

# What the history writes to an SD card in a day; as root with ext4's journal in it.
bench-history: develop
	@mkdir -p build
	$(PY) tests/bench/history.py

bench-temperature: develop
	$(PY) tests/bench/temperature.py $(SEEDS) --keep

bench-beside: develop peers
	@test -n "$(CLKNETSIM)" || { echo 'make bench-beside CLKNETSIM=DIRECTORY: where mlichvar/clknetsim was built'; exit 64; }
	$(PY) tests/bench/beside.py $(CLKNETSIM) --keep

bench-upstreams: develop peers
	@test -n "$(CLKNETSIM)" || { echo 'make bench-upstreams CLKNETSIM=DIRECTORY: where mlichvar/clknetsim was built'; exit 64; }
	$(PY) tests/bench/upstreams.py $(CLKNETSIM) --keep

# Bytes of others at every door, each for FUZZ_S seconds: the packet path in C, then what Python reads.
FUZZ_S ?= 60
fuzz: develop peers
	$(MAKE) -C native fuzz SECONDS=$(FUZZ_S)
	$(PY) -m pip install -q -c constraints.txt atheris
	@set -e; for door in receiver gpsd samples configuration keys foreign state reply answers upstream sealed_answer key_establishment key_session chronyc ntpq http; do \
	    echo "fuzzing $$door"; $(PY) tests/fuzz/doors.py $$door -max_total_time=$(FUZZ_S) -verbosity=0; done

# The C core's tests as built for ARMv6, ARMv7, ARM64 and i686, under an emulator.
cross:
	@sh image/cross.sh
	$(MAKE) -C native -j$$(nproc) cross

clean:
	rm -rf build $(VENV) *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find refclock ppsd hw-sim -name '*.so' -delete
	find . -name __pycache__ -prune -exec rm -rf {} +
