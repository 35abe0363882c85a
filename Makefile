# The targets name the kinds of proof. 'make demo' and 'make test' need nothing else typed.
GO      ?= go
SHELL   := /bin/bash
PKGS    := ./...
N       ?= 1
FUZZTIME ?= 2m
TESTFLAGS ?=

.PHONY: all build test test-short test-stale test-diff test-tpch test-tpcc test-fault test-leaks test-descriptors test-load test-attack test-drivers fuzz bench lint vuln golden docs demo run deps clean

all: lint test

build: ## the binaries, in bin/; the first time PostgreSQL's parser is compiled, which takes minutes
	$(GO) build -o bin/ ./cmd/pgmosaic ./cmd/pgmosaic-demo

deps: ## installs what the tests need and is missing (Debian: PostgreSQL, Chromium, HAProxy, promtool)
	@./.ci/install

test: deps ## everything but what takes longer: unit, golden and real servers
	$(GO) test $(TESTFLAGS) -timeout 40m -parallel 7 $(PKGS)

test-short: ## no servers, no browser
	$(GO) test -short -race $(PKGS)

test-diff: deps ## the same statements and scripts of writes on one PostgreSQL and over shards, a thousand random ones of each where make test has 200 and 40; N=.. for more
	$(GO) test -timeout 60m ./cmd/pgmosaic -run 'TestSameAnswersAsOnePostgreSQL|TestSameTablesAfterWrites' -count=1 -diff.n=$(N)000 -dml.n=$(N)000 -diff.widths 2,1,3,7

test-tpch: deps ## TPC-H's 22 queries at scale 0.1 over two shards and on one PostgreSQL, with the time of each
	$(GO) test -timeout 20m -count=1 -tags tpch ./cmd/pgmosaic -run TestTPCH -v

test-tpcc: deps ## TPC-C with its consistency conditions, over three shards and on one PostgreSQL, with the new orders of a minute
	$(GO) test -timeout 20m -count=1 -tags tpcc ./cmd/pgmosaic -run TestTPCC -v

test-stale: deps ## reads of counters under every fault of nodes, for minutes; FOR=10m for longer
	$(GO) test -timeout 60m -count=1 ./cmd/pgmosaic -run 'TestNoStaleReads$$|TestBoundedReads|TestFreshBehindNames' -stale.for $(or $(FOR),3m) -v

test-fault: deps ## kills, lost servers and races, with the race detector
	$(GO) test -timeout 30m -race -count=1 ./cmd/pgmosaic -run 'Killed|Lost|Dead|Stale|Bounded|Failover|SwitchOver|SplitBrain|Cancel|Crash|Leak|HalfOpen|Garbage' -kill.every 1

test-leaks: deps ## random sessions over few servers, each reply against a model and against one PostgreSQL, and late cancel requests, a thousand statements of each session where make test has 250; N=.. for more
	$(GO) test -timeout 4h -count=1 ./cmd/pgmosaic -run 'NothingLeaks|CancelRace|LateCancel|SessionsLikePostgreSQL' -leak.n $(N)000 -late.n $(N)00 -likeness.n $(N)0
	$(GO) test -timeout 4h -count=1 ./cmd/pgmosaic -run 'SessionsLikePostgreSQL' -likeness.n $(N)0 -likeness.unnamed

test-descriptors: deps ## a build that checks at each system call whose the descriptor is, that nobody blocks on a loop and that no message is read when its buffer was given back, under kills, lost servers, cancels, random sessions and load
	$(GO) test -timeout 5m -count=1 -tags fdcheck ./proxy/loop ./proxy/wire
	$(GO) test -timeout 60m -count=1 -tags fdcheck ./cmd/pgmosaic -run 'Killed|Lost|Dead|Vanished|Silent|Cancel|Crash|Leak|HalfOpen|Garbage|Failover|Copy|Pipeline' -leak.n $(N)000
	$(GO) build -tags fdcheck -o bin/pgmosaic-fdcheck ./cmd/pgmosaic
	PGMOSAIC_BINARY=../../bin/pgmosaic-fdcheck $(GO) test -timeout 20m -count=1 -tags 'load fdcheck' ./cmd/pgmosaic -run 'TestLoad(Active|Storm|Slow|Big)' -v

test-load: deps build ## 10,000 idle clients, 1,000 active ones, a storm of logins, slow readers, a result of 1 GB
	$(GO) test -timeout 20m -count=1 -tags load ./cmd/pgmosaic -run TestLoad -v

test-attack: deps build ## attacks that take longer: silent connections, full disks (as root), clocks that jump, names that move, administrators at once, wrong replicas, failovers under admin statements, values of 1 GB, 10,000 clients over TLS
	@./.ci/install faketime
	$(GO) test -timeout 10m -count=1 -tags attack ./shardmap/filestore -run TestAttack -v
	$(GO) test -timeout 60m -count=1 -tags attack ./cmd/pgmosaic -run TestAttack -v -kill.every 5

test-drivers: deps ## pgx's own suite, and drivers and ORMs of other languages
	@./.ci/drivers .pgmosaic/drivers
	DRIVERS=$(CURDIR)/.pgmosaic/drivers $(GO) test -timeout 30m -count=1 -tags drivers ./cmd/pgmosaic -run 'TestDrivers|TestORMs|TestPgxs' -v

fuzz: ## each fuzz target for FUZZTIME; what it found worth keeping joins the package's testdata/fuzz
	@for p in $$(grep -rEo --include='*_test.go' '^func Fuzz[A-Za-z0-9]+' . | sed 's|^\./||; s|/[^/]*:func |:|' | sort -u); do \
	  pkg=$${p%%:*}; f=$${p##*:}; \
	  $(GO) test ./$$pkg -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 2s || exit 1; \
	  found="$$($(GO) env GOCACHE)/fuzz/$$($(GO) list -m)/$$pkg/$$f"; \
	  if [ -d "$$found" ]; then mkdir -p $$pkg/testdata/fuzz/$$f && find "$$found" -type f -size -9 -exec cp -t $$pkg/testdata/fuzz/$$f {} + ; fi; \
	done

bench: deps build ## pgbench through pgmosaic, through PgBouncer and direct, in one run
	@./.ci/install pgbouncer
	$(GO) run ./cmd/benchmark -bin bin/pgmosaic $(BENCH)

lint: ## all linters, in one program that go vet runs (.ci/lint), tests behind tags too; the table of imports and the list of what is too large are tests
	@test -z "$$($(GO) tool gofumpt -l . | tee /dev/stderr)" || { echo "run: go tool gofumpt -w ."; exit 1; }
	@test -z "$$($(GO) tool goimports -l . | tee /dev/stderr)" || { echo "run: go tool goimports -w ."; exit 1; }
	$(GO) build -ldflags='-s -w' -o bin/lint ./.ci/lint
	$(GO) vet -vettool=bin/lint -tags 'attack load drivers tpch tpcc' $(PKGS) ./.ci/lint
	$(GO) vet -vettool=bin/lint -tags fdcheck ./proxy/loop ./proxy/wire
	$(GO) tool unparam -tests=false $(PKGS)
	$(GO) test -vet=off -short -run 'TestImports|TestNothingOutgrows|TestComments' ./cmd/pgmosaic

vuln: ## what is known against the libraries; asks vuln.go.dev, so it is no part of lint: a build without a network would fail, or say nothing
	$(GO) tool govulncheck $(PKGS)

golden: ## rewrites the golden files and the generated pages
	$(GO) test -short ./router ./cmd/pgmosaic -run 'TestGolden|TestDocs' -rewrite

docs: golden ## the generated pages are fresh

demo: build deps ## servers, proxy and a sharded shop, on this machine
	bin/pgmosaic-demo

run: demo

clean:
	rm -rf bin .pgmosaic
