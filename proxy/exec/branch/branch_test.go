package branch

import (
	"errors"
	"fmt"
	"testing"

	"github.com/pgmosaic/pgmosaic/proxy/pool"
	"github.com/pgmosaic/pgmosaic/proxy/txn"
	"github.com/pgmosaic/pgmosaic/proxy/wire"
)

func quiet(wire.Message) error { return nil }

// opened is a branch that has written something, and its server. Two statements have run there.
func opened(t *testing.T, p *postgres) *Branch {
	t.Helper()
	b := Of(p.server(t))
	b.On(Writes)
	b.Begin("BEGIN")
	if b.State() != Opening|Wrote || !b.Owes() {
		t.Fatalf("it is %s", b.State())
	}
	b.Server.SendQuery("INSERT")
	if err := b.Server.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := b.Answered(); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Server.ReadTag(); err != nil || b.State() != Open|Wrote || b.Owes() {
		t.Fatalf("%v, it is %s", err, b.State())
	}
	return &b
}

// agrees says how a branch and its server differ; empty where they do not.
func agrees(b *Branch, p *postgres) string {
	status, prepared, _ := p.truth()
	want := Done
	switch {
	case b.Server.Dirty:
		want = Lost
	case prepared:
		want = Prepared
	case status != 'I':
		want = Open
	}
	if got := b.State().Phase(); got != want {
		return fmt.Sprintf("it is %s, and its server %s", got, want)
	}
	return ""
}

// A branch knows how its transaction has ended, whatever its server says to that, and whenever it is lost.
func TestABranchEndsAsItsServerSays(t *testing.T) {
	refused := func(sql, code string) map[string]string { return map[string]string{sql: code} }
	for name, c := range map[string]struct {
		server    *postgres
		ends      func(b *Branch) error
		committed bool
		phase     State
	}{
		"COMMIT":                           {&postgres{}, commit, true, Done},
		"COMMIT that is refused":           {&postgres{refuses: refused("COMMIT", "23503")}, commit, false, Done},
		"COMMIT behind an unheard error":   {&postgres{}, func(b *Branch) error { fail(b); return commit(b) }, false, Done},
		"COMMIT that its server dies of":   {&postgres{dies: 3}, commit, false, Lost},
		"COMMIT whose answer is lost":      {&postgres{dies: 3, behind: true}, commit, true, Lost},
		"ROLLBACK":                         {&postgres{}, rollback, false, Done},
		"ROLLBACK that is refused":         {&postgres{refuses: refused("ROLLBACK", "57014")}, rollback, false, Lost},
		"ROLLBACK that its server dies of": {&postgres{dies: 3}, rollback, false, Lost},
		"the end of a pipeline":            {&postgres{}, func(b *Branch) error { b.First("SAVEPOINT a"); b.Resync(); return nil }, false, Open},
		"a pipeline whose server dies":     {&postgres{dies: 3}, func(b *Branch) error { b.First("SAVEPOINT a"); b.Resync(); return nil }, false, Lost},
		"nothing":                          {&postgres{}, func(*Branch) error { return nil }, false, Open},
	} {
		t.Run(name, func(t *testing.T) {
			b := opened(t, c.server)
			err := c.ends(b)
			if _, _, committed := c.server.truth(); committed != c.committed {
				t.Errorf("it has committed: %t", committed)
			}
			if why := agrees(b, c.server); why != "" || b.State().Phase() != c.phase {
				t.Errorf("%v: it is %s; %s", err, b.State(), why)
			}
			if !b.Wrote() {
				t.Error("what it has written is forgotten before it was noted")
			}
		})
	}
}

func commit(b *Branch) error {
	tag, err := b.Commit(quiet)
	if err == nil && tag != "COMMIT" {
		err = errors.New(tag)
	}
	return err
}

func rollback(b *Branch) error {
	b.Rollback()
	return nil
}

// fail has a statement fail on the branch's server.
func fail(b *Branch) { _, _ = b.Server.Exec("COMMIT PREPARED") }

// A BEGIN that fails gives its server up: what was sent behind it would run outside of the transaction.
func TestABeginThatFailsLosesItsServer(t *testing.T) {
	for _, p := range []*postgres{{refuses: map[string]string{"BEGIN": "57014"}}, {dies: 1}, {dies: 1, behind: true}} {
		b := Of(p.server(t))
		b.Begin("BEGIN")
		b.Server.SendQuery("INSERT")
		if err := b.Server.Flush(); err != nil {
			t.Fatal(err)
		}
		err := b.Answered()
		if err == nil || b.State() != Lost || b.Owes() {
			t.Errorf("%v, it is %s, and owes %t", err, b.State(), b.Owes())
		}
		var se *pool.ServerError
		if told := errors.As(err, &se); told != (p.refuses != nil) {
			t.Errorf("its server's own error: %v", err)
		}
	}
}

// Commits in two phases over servers each of which dies at each statement, or behind it, or refuses a step: all of it or nothing is there, nothing stays
// prepared where its server lives, and each branch knows what its server is at.
func TestBranchesCommitTogetherOrNotAtAll(t *testing.T) {
	type fault struct {
		of, dies      int
		behind        bool
		refuses, code string
		only          bool
	}
	var faults []fault
	for of := range 3 {
		for dies := 3; dies < 9; dies++ {
			for _, only := range []bool{false, true} {
				faults = append(faults, fault{of: of, dies: dies, only: only}, fault{of: of, dies: dies, behind: true, only: only})
			}
		}
		for _, only := range []bool{false, true} {
			faults = append(faults, fault{of: of, refuses: "PREPARE", code: "55000", only: only}, fault{of: of, refuses: "SELECT pgmosaic", code: "42501", only: only})
		}
	}
	faults = append(faults, fault{}, fault{only: true}, fault{refuses: "COMMIT", code: "23503"})
	seen := map[txn.Outcome]int{}
	for _, f := range faults {
		t.Run(fmt.Sprintf("%+v", f), func(t *testing.T) {
			servers := []*postgres{{}, {}, {}}
			servers[f.of].dies, servers[f.of].behind = f.dies, f.behind
			var branches []*Branch
			for _, p := range servers {
				branches = append(branches, opened(t, p))
			}
			if f.refuses != "" {
				servers[f.of].refuse(f.refuses, f.code)
			}
			var parts []*Part
			for i, b := range branches {
				b.Only = f.only // all of them: the decision comes behind
				parts = append(parts, &Part{Branch: b, Name: fmt.Sprint("s", i), Settings: pool.NoSettings, Hear: quiet})
			}
			outcome, err := txn.Commit(txn.GID("i", "s0"), parts[0], []txn.Participant{parts[1], parts[2]})
			seen[outcome]++
			for i, b := range branches {
				_, prepared, committed := servers[i].truth()
				decided := i == 0 && !f.only || committed
				switch why := agrees(b, servers[i]); {
				case why != "":
					t.Errorf("%d: %s", i, why)
				case outcome == txn.Committed && !committed:
					t.Errorf("%d of a commit that was done has not", i)
				case outcome == txn.Aborted && committed:
					t.Errorf("%d of a commit that was undone has", i)
				case outcome == txn.Aborted && prepared && !b.Server.Dirty:
					t.Errorf("%d stays prepared, and its server lives", i)
				case outcome == txn.Unfinished && !committed && !prepared:
					t.Errorf("%d of a commit that is decided is gone", i)
				case outcome == txn.InDoubt && !decided && !prepared:
					t.Errorf("%d of a commit that may be decided is gone", i)
				}
			}
			if err == nil && outcome != txn.Committed && outcome != txn.Unfinished {
				t.Errorf("outcome %d without a word", outcome)
			}
		})
	}
	for _, o := range []txn.Outcome{txn.Committed, txn.Unfinished, txn.Aborted, txn.InDoubt} {
		if seen[o] == 0 {
			t.Errorf("no fault has led to outcome %d", o)
		}
	}
	t.Logf("outcomes: %v", seen)
}

// Where a pipeline ends before the answer to BEGIN was read, that is among what is read then.
func TestTheEndOfAPipelineReadsTheAnswerToBegin(t *testing.T) {
	p := &postgres{}
	b := Of(p.server(t))
	b.Begin("BEGIN")
	b.First("SAVEPOINT a")
	b.Resync()
	if why := agrees(&b, p); why != "" || b.Owes() || b.State() != Open {
		t.Errorf("it is %s, and owes %t; %s", b.State(), b.Owes(), why)
	}
}

// Each statement is several events.
func TestEventsAllocateNothing(t *testing.T) {
	b := Of(&pool.Server{})
	if n := testing.AllocsPerRun(100, func() {
		for _, e := range [...]Event{Writes, Settles, Begins, Begun, Runs, Writes, HasRead, Ends, Returns} {
			b.On(e)
		}
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkEventsOfAStatement(b *testing.B) {
	on := Of(&pool.Server{})
	for b.Loop() {
		on.On(Writes)
		on.On(Settles)
		on.On(Returns)
	}
}
