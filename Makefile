# Short names for what Meson and the scripts do.  `make help` lists them.

BUILD_DIR ?= build
MESON_OPTIONS ?=

# Debian's, whatever else is in PATH: it runs with Debian's Python.
MESON := $(firstword $(wildcard /usr/bin/meson) meson)

.PHONY: all programs help install clean test check fuzz smoke bench bench-quick chaos chaos-seeds overload

all: TARGET = all
programs: TARGET = programs
# A file is no target here: make cannot name one whose path holds a space.
all programs:
	@command -v $(MESON) >/dev/null || { echo "meson is not installed; ./dev_run.sh installs what is missing" >&2; exit 3; }
	@test -e '$(BUILD_DIR)/build.ninja' || $(MESON) setup $(MESON_OPTIONS) '$(BUILD_DIR)'
	@ninja -C '$(BUILD_DIR)' $(TARGET)

help:
	@echo "make                          build into $(BUILD_DIR)/ (MESON_OPTIONS='-Dbuildtype=debug' for the first time)"
	@echo "make programs                 what runs alone: the three programs and the rpc command, not tests, fuzzers, load generators"
	@echo "make install DESTDIR= PREFIX= install; the prefix is /usr/local by default"
	@echo "make test                     all tests, as ./dev_test.sh"
	@echo "make smoke                    test/nex-smoketest.sh against a shop that runs on this machine"
	@echo "make check                    formatter, gcc and clang with warnings as errors, static checks, tests under sanitizers"
	@echo "make fuzz FUZZ_SECONDS= FUZZERS= each fuzzer for a while (60 s, all of them; FUZZERS='guard json')"
	@echo "make bench                    the shop beside what its servers can do (BENCH_OPTIONS='--peer nameko'); bench-quick: in small"
	@echo "make chaos SECONDS= SEED=     the shop under load while faults are injected; what was lost, doubled, hung (180 s, random)"
	@echo "make chaos-seeds SEEDS= JOBS= the same for each of the seeds, 300 s each (1 to 10), so many at a time (1)"
	@echo "make overload                 what becomes of twice the load that the shop can sustain (OVERLOAD_OPTIONS='--quick')"
	@echo "make clean                    remove the build folder; data under .run/ stay"
	@echo "./dev_run.sh                  run the shop;  ./dev_run_backingsvcs.sh  its servers alone"

install: all
	@$(if $(PREFIX),$(MESON) configure '$(BUILD_DIR)' -Dprefix='$(PREFIX)')
	DESTDIR='$(DESTDIR)' $(MESON) install -C '$(BUILD_DIR)'

clean:
	rm -rf '$(BUILD_DIR)'

test:
	@./dev_test.sh

smoke:
	@test/nex-smoketest.sh local

check:
	@dev/check.sh

fuzz:
	@FUZZ_SECONDS='$(or $(FUZZ_SECONDS),60)' dev/fuzz.sh $(FUZZERS)

bench: all
	@BUILD_DIR='$(BUILD_DIR)' loadtest/bench.py $(BENCH_OPTIONS)

bench-quick: all
	@BUILD_DIR='$(BUILD_DIR)' loadtest/bench.py --quick $(BENCH_OPTIONS)

chaos: all
	@BUILD_DIR='$(BUILD_DIR)' chaos/chaos.py --seconds '$(or $(SECONDS),180)' $(if $(SEED),--seed '$(SEED)') $(CHAOS_OPTIONS)

chaos-seeds: all
	@BUILD_DIR='$(BUILD_DIR)' JOBS='$(or $(JOBS),1)' chaos/seeds.sh '$(or $(SECONDS),300)' $(or $(SEEDS),1 2 3 4 5 6 7 8 9 10)

overload: all
	@BUILD_DIR='$(BUILD_DIR)' chaos/overload.py $(OVERLOAD_OPTIONS)
