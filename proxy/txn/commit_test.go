package txn

import (
	"errors"
	"strings"
	"testing"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
)

// shard is a scripted participant: it knows whether its work is open, prepared, committed or gone, and
// fails at the step that the test names: "error" answers with an error, "lost" does the work and loses
// the answer, "rollback" answers ROLLBACK as PostgreSQL does for a failed transaction.
type shard struct {
	name, failAt, how string
	state             string // open, prepared, committed, gone
	pending           string
	broken            bool
	only              bool // READ ONLY
	begun             bool // in the transaction of its decision, behind its part
	decided           bool // and that has committed
}

type serverError struct{}

func (serverError) Error() string    { return "deferred constraint" }
func (serverError) SQLState() string { return "23505" }

type absent struct{ serverError }

func (absent) SQLState() string { return pgsql.UndefinedObject }

func (s *shard) Shard() string  { return s.name }
func (s *shard) ReadOnly() bool { return s.only }
func (s *shard) Over() bool     { return s.state != "open" && !s.begun }

func (s *shard) Send(sql string) error {
	if strings.HasPrefix(sql, "PREPARE") && !s.only {
		panic("a part has no row")
	}
	return s.send(sql)
}

func (s *shard) send(sql string) error {
	if s.broken {
		return errors.New("broken pipe")
	}
	s.pending = sql
	return nil
}

func (s *shard) Decide(_, _ string, _ []string, then string) error {
	if s.only && !s.begun {
		panic("a row is written in a READ ONLY transaction")
	}
	if then == "" {
		then = "SELECT"
	}
	return s.send(then)
}

func (s *shard) Recv() (string, error) {
	sql := s.pending
	step := strings.Fields(sql)[0]
	if strings.HasPrefix(sql, "COMMIT PREPARED") || strings.HasPrefix(sql, "ROLLBACK PREPARED") {
		step += " PREPARED"
	}
	fail := step == s.failAt
	if fail && s.how == "absent" {
		s.state = "gone"
		return "", absent{}
	}
	if fail && s.how == "error" {
		switch {
		case step == "COMMIT" && s.begun:
			s.begun = false
		case step == "COMMIT" || step == "PREPARE":
			s.state = "gone"
		}
		return "", serverError{}
	}
	if fail && s.how == "rollback" {
		if s.begun {
			s.begun = false
		} else {
			s.state = "gone"
		}
		return "ROLLBACK", nil
	}
	tag := step
	switch step {
	case "PREPARE":
		s.state, tag = "prepared", "PREPARE TRANSACTION"
	case "BEGIN":
		s.begun = true
		if fail && s.how == "gone" { // a resolver has rolled its part back before, and nobody remembers
			s.state = "gone"
		}
	case "SELECT":
		if strings.Contains(sql, "pg_prepared_xacts") && s.state == "prepared" {
			tag = "SELECT 1"
		}
	case "COMMIT", "COMMIT PREPARED":
		switch {
		case s.begun:
			s.begun, s.decided = false, true
		case s.state != "gone":
			s.state = "committed"
		}
	case "ROLLBACK", "ROLLBACK PREPARED":
		if s.begun {
			s.begun = false
		} else {
			s.state = "gone"
		}
	}
	if fail && s.how == "lost" {
		s.broken = true
		return "", errors.New("connection reset")
	}
	return tag, nil
}

// Every step of every participant fails in every way, whichever of them were made READ ONLY. Then: told committed means that the decider
// has committed and no other is gone; told aborted means that nobody has committed.
func TestEveryFailureLeavesAllOrNothing(t *testing.T) {
	for _, only := range []string{"", "b", "abc"} {
		for _, failAt := range []string{"", "PREPARE", "BEGIN", "SELECT", "COMMIT", "COMMIT PREPARED", "ROLLBACK PREPARED"} {
			for _, how := range []string{"error", "lost", "rollback"} {
				for victim := range 3 {
					if how == "rollback" && failAt != "PREPARE" && failAt != "COMMIT" || victim > 0 && failAt == "COMMIT" {
						continue // cannot happen
					}
					p := []*shard{{name: "a", state: "open"}, {name: "b", state: "open"}, {name: "c", state: "open"}}
					for _, s := range p {
						s.only = strings.Contains(only, s.name)
					}
					p[victim].failAt, p[victim].how = failAt, how
					outcome, err := Commit("gid", p[0], []Participant{p[1], p[2]})
					if wrong := judged(p, outcome, err, failAt == "COMMIT" && how == "lost"); wrong != "" {
						t.Errorf("%s %s at participant %d, with %q READ ONLY: %s (%v), states %s %s %s", failAt, how, victim, only, wrong, err, p[0].state, p[1].state, p[2].state)
					}
				}
			}
		}
	}
}

// judged says what is wrong with an outcome; empty if nothing is.
func judged(p []*shard, outcome Outcome, err error, doubtful bool) string {
	committed, left := 0, 0
	for _, s := range p {
		switch s.state {
		case "committed":
			committed++
		case "prepared":
			left++
		}
	}
	switch outcome {
	case Committed:
		if committed != 3 || err != nil {
			return "told committed"
		}
	case Unfinished:
		if p[0].state != "committed" && !p[0].decided || committed+left != 3 {
			return "told committed"
		}
	case Aborted:
		if committed != 0 || err == nil {
			return "told aborted"
		}
	case InDoubt:
		if !doubtful || p[1].state != "prepared" || p[2].state != "prepared" {
			return "in doubt"
		}
	}
	return ""
}

// What was rolled back, and forgotten, before its process has decided is not decided any more.
func TestNothingIsDecidedBehindPartsThatAreGone(t *testing.T) {
	p := []*shard{{name: "a", state: "open", only: true, failAt: "BEGIN", how: "gone"}, {name: "b", state: "open", only: true}}
	if outcome, err := Commit("gid", p[0], []Participant{p[1]}); outcome != Aborted || !errors.Is(err, ErrOvertaken) || p[0].decided || p[0].begun {
		t.Errorf("%v, %v, decided %v", outcome, err, p[0].decided)
	}
}

func TestGIDs(t *testing.T) {
	gid := GID("5e8c5d39-0d2c-4a3e-9a68-000000000000", "s1")
	if install, decider, ok := ParseGID(gid); !ok || install != "5e8c5d39-0d2c-4a3e-9a68-000000000000" || decider != "s1" || len(gid) > 199 {
		t.Errorf("%q", gid)
	}
	if _, _, ok := ParseGID("citus_0_1_2"); ok {
		t.Error("a stranger's gid was taken for ours")
	}
	if gid == GID("5e8c5d39-0d2c-4a3e-9a68-000000000000", "s1") {
		t.Error("two gids are equal")
	}
	for name, may := range map[string]bool{"s1": true, "Größe 2": true, "a:b": false, "a/b": false, strings.Repeat("x", 100): true, strings.Repeat("x", 120): false} {
		if MayDecide("5e8c5d39-0d2c-4a3e-9a68-000000000000", name) != may {
			t.Errorf("a shard called %q", name)
		}
	}
}

// Of a part without a row nothing tells what became of it when it is not there: whoever commits is told. Of another part its row tells.
func TestPartsThatAreNotThereAnyMore(t *testing.T) {
	for _, only := range []string{"b", "abc", "a c", ""} {
		p := []*shard{{name: "a", state: "open"}, {name: "b", state: "open", failAt: "COMMIT PREPARED", how: "absent"}, {name: "c", state: "open"}}
		for _, s := range p {
			s.only = strings.Contains(only, s.name)
		}
		outcome, err := Commit("gid", p[0], []Participant{p[1], p[2]})
		var gone *GonePartError
		if told := errors.As(err, &gone) && gone.Shard == "b"; outcome != Unfinished || told != p[1].only || p[2].state != "committed" {
			t.Errorf("with %q READ ONLY: outcome %d, %v, states %s %s %s", only, outcome, err, p[0].state, p[1].state, p[2].state)
		}
	}
}
