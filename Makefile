# make run     builds, indexes 25,409 earthquakes into SQLite, shows the snapshots of eight regions
# make stream  reads orders from a Redis stream, over a Redis of its own
# make test    runs all tests, over private PostgreSQL and Redis servers and in a browser too; installs Debian packages that are missing
# make test-kafka runs the tests of the cargo feature kafka, which builds librdkafka; make test leaves them out
# make check   format, lints, documentation, combinations of features, licences, benches, tests, instructions: what CI runs,
#              but for make run
# make soak    lives 100,000 histories with seeds of their own; SOAK=N for 4 N
# make bench   measures what is asked for, beside what one would take instead, and prints a table; BENCH=quick for a short one
# make bench-all  runs the other benches, and prints one table of all
# make instructions  counts the instructions of events, against benches/instructions.json; FOREBAY_BLESS=1 renews that;
#              ROWS="Rust + row" counts the rows whose names hold that

CARGO ?= cargo
# Without the optimisations and the allocator that take long to build, and somewhat slower than what `cargo install` builds.
QUICK    = --profile quick --no-default-features --features
# What needs no server: less to build.
EMBEDDED = $(QUICK) cli,lua,sqlite
ALL      = $(QUICK) cli,lua,sqlite,postgres,redis,serve
FOREBAY  = target/quick/forebay
QUAKES   = --store sqlite:target/quakes.db

.PHONY: run stream test test-kafka check format lints lua documentation features licences benches bench bench-all instructions soak \
	setup setup-test clean

run: setup
	@$(CARGO) build $(EMBEDDED) --quiet
	@rm -f target/quakes.db target/quakes.db-wal target/quakes.db-shm
	@$(FOREBAY) run examples/quakes/pipeline.toml $(QUAKES)
	@echo
	@$(FOREBAY) latest --config examples/quakes/pipeline.toml --snapshots sqlite:target/quakes.db --table

stream: setup
	@$(CARGO) build $(ALL) --quiet
	@FOREBAY=$(FOREBAY) examples/stream/run.sh

test: setup-test
	$(CARGO) test --quiet

# Apart from the others: librdkafka takes minutes to build.
test-kafka: setup-test
	@tests/setup.sh kafka
	tests/features.sh kafka
	tests/kafka.sh

check: format lints lua documentation features licences benches test instructions

format:
	$(CARGO) fmt --check

lints: setup
	$(CARGO) clippy --all-targets --quiet -- -D warnings

# Form by stylua if it is there, names by luacheck.
lua:
	@tests/setup.sh check
	tests/lua.sh

documentation: setup
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps --document-private-items --quiet

# Each combination of cargo features that makes sense, and the oldest Rust that is promised.
features: setup
	tests/features.sh

# Licences, duplicates and sources of dependencies: .deny.toml.
licences:
	@if command -v cargo-deny >/dev/null; then $(CARGO) deny --log-level error check licenses bans sources; \
	else echo "licences: not checked, cargo-deny is not installed: cargo install cargo-deny --locked" >&2; fi

# In the profile of the tests, whose crates are there: that of the measurements would build all of them once more.
benches: setup
	$(CARGO) build --benches --quiet

SOAK ?= 25000
soak: setup-test
	FOREBAY_SOAK=$(SOAK) $(CARGO) test --quiet --test it -- histories::five

bench: setup-test
	-@tests/setup.sh bench
	@BENCH=$(BENCH) $(CARGO) bench --quiet --bench goals
	@$(CARGO) bench --quiet --bench sources

# In the profile of `make run`, with what it leaves out.
instructions: setup-test
	@tests/setup.sh instructions
	$(CARGO) bench $(ALL) --quiet --bench instructions $(if $(ROWS),-- "$(ROWS)")

bench-all: setup-test
	$(CARGO) bench --quiet --bench erc20
	$(CARGO) bench --quiet --bench formats
	$(CARGO) bench --quiet --bench lua_sqlite
	$(CARGO) bench --quiet --bench postgres_commit
	$(CARGO) bench --quiet --bench redis_publish
	$(CARGO) bench --quiet --bench redis_seed
	$(CARGO) bench --quiet --bench history
	$(CARGO) bench --quiet --bench report

setup:
	@tests/setup.sh

setup-test:
	@tests/setup.sh test

clean:
	$(CARGO) clean
