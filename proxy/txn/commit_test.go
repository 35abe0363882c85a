package txn

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// shard is a scripted participant: it knows whether its work is open, prepared, committed or gone, and
// fails at the step that the test names: "error" answers with an error, "lost" does the work and loses
// the answer, "rollback" answers ROLLBACK as PostgreSQL does for a failed transaction.
type shard struct {
	name, failAt, how string
	state             string // open, prepared, committed, gone
	pending           string
	broken            bool
}

type serverError struct{}

func (serverError) Error() string    { return "deferred constraint" }
func (serverError) SQLState() string { return "23505" }

func (s *shard) Shard() string { return s.name }

func (s *shard) Send(sql string) error {
	if s.broken {
		return errors.New("broken pipe")
	}
	s.pending = sql
	return nil
}

func (s *shard) Decide(_, _ string, _ []string, then string) error {
	if then == "" {
		then = "SELECT"
	}
	return s.Send(then)
}

func (s *shard) Recv() (string, error) {
	sql := s.pending
	step := strings.Fields(sql)[0]
	if strings.HasPrefix(sql, "COMMIT PREPARED") || strings.HasPrefix(sql, "ROLLBACK PREPARED") {
		step += " PREPARED"
	}
	fail := step == s.failAt
	if fail && s.how == "error" {
		if step == "COMMIT" || step == "PREPARE" {
			s.state = "gone"
		}
		return "", serverError{}
	}
	if fail && s.how == "rollback" {
		s.state = "gone"
		return "ROLLBACK", nil
	}
	tag := step
	switch step {
	case "PREPARE":
		s.state, tag = "prepared", "PREPARE TRANSACTION"
	case "COMMIT", "COMMIT PREPARED":
		if s.state != "gone" {
			s.state = "committed"
		}
	case "ROLLBACK", "ROLLBACK PREPARED":
		s.state = "gone"
	}
	if fail && s.how == "lost" {
		s.broken = true
		return "", errors.New("connection reset")
	}
	return tag, nil
}

// Every step of every participant fails in every way. Then: told committed means that the decider has
// committed and no other is gone; told aborted means that nobody has committed.
func TestEveryFailureLeavesAllOrNothing(t *testing.T) {
	for _, failAt := range []string{"", "PREPARE", "SELECT", "COMMIT", "COMMIT PREPARED", "ROLLBACK PREPARED"} {
		for _, how := range []string{"error", "lost", "rollback"} {
			for victim := range 3 {
				name := fmt.Sprintf("%s %s at participant %d", failAt, how, victim)
				p := []*shard{{name: "a", state: "open"}, {name: "b", state: "open"}, {name: "c", state: "open"}}
				p[victim].failAt, p[victim].how = failAt, how
				if how == "rollback" && failAt != "PREPARE" && failAt != "COMMIT" || victim > 0 && failAt == "COMMIT" {
					continue // cannot happen
				}
				outcome, err := Commit("gid", p[0], []Participant{p[1], p[2]})
				committed := 0
				for _, s := range p {
					if s.state == "committed" {
						committed++
					}
				}
				switch outcome {
				case Committed:
					if committed != 3 || err != nil {
						t.Errorf("%s: told committed, %d have (%v)", name, committed, err)
					}
				case Unfinished:
					if p[0].state != "committed" || p[1].state == "gone" || p[2].state == "gone" {
						t.Errorf("%s: told committed, states %s %s %s", name, p[0].state, p[1].state, p[2].state)
					}
				case Aborted:
					if committed != 0 || err == nil {
						t.Errorf("%s: told aborted, %d have committed (%v)", name, committed, err)
					}
				case InDoubt:
					if failAt != "COMMIT" || victim != 0 || how != "lost" || p[1].state != "prepared" || p[2].state != "prepared" {
						t.Errorf("%s: in doubt, states %s %s %s", name, p[0].state, p[1].state, p[2].state)
					}
				}
			}
		}
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
}
