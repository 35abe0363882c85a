//go:build attack

package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
)

func TestAttackMapChangesUnderAMove(t *testing.T) {
	for i, x := range []underAMove{
		{"DISTRIBUTE TABLE %s.public.keyed IN GROUP g KEY (k)", "keyed", "PIN KEY (1) OF %s.g ON b"},
		{"DISTRIBUTE TABLE %s.public.keyless IN GROUP g KEY (k)", "keyless", "PIN KEY (1) OF %s.g ON b"},
		{"DISTRIBUTE TABLE %s.public.codes AS REFERENCE", "codes", "CREATE SHARD c IN %s NODE '{c}'"},
		{"DISTRIBUTE SCHEMA %s.tenant ON b", "tenant.one", "CREATE SHARD c IN %s NODE '{c}'"},
		{"DISTRIBUTE TABLE %s.public.keyed IN GROUP g KEY (k)", "keyed", "DROP GROUP g IN %s"},
	} {
		t.Run(fmt.Sprint(x.table, ", ", strings.ToLower(strings.Join(strings.Fields(x.change)[:2], " "))), func(t *testing.T) {
			mapChanges(t, fmt.Sprintf("twoadmins_%d", i), x)
		})
	}
}

// Four administrators in two processes, all at once: what each is told is done is in the map afterwards, and what is not told so is not.
func TestAttackTwoAdminsAtOnce(t *testing.T) {
	w := newTwoAdmins(t, "atonce")
	if err := w.exec(t, 0, "CREATE GROUP p IN %s KEY (int) BY HASH"); err != nil {
		t.Fatal(err)
	}
	w.agree(t)
	told := []string{"40001", "55006", "42710", "42P01", "55000", "3F000", "42704", "42P04", "3D000"}
	var mu sync.Mutex
	is := map[string]bool{} // what was told of the things that one administrator alone changes
	count := map[string]int{}
	var all sync.WaitGroup
	for n := range 4 {
		all.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(n), 7))
			exec := func(sql, thing string, there bool) {
				err := w.exec(t, n%2, sql)
				mu.Lock()
				defer mu.Unlock()
				verb := strings.Join(strings.Fields(sql)[:2], " ")
				if err == nil {
					count[verb+" done"]++
					if thing != "" {
						is[thing] = there
					}
					return
				}
				var e interface{ SQLState() string }
				if !errors.As(err, &e) || !slices.Contains(told, e.SQLState()) {
					t.Errorf("%s: %v", sql, err)
					return
				}
				count[verb+" "+e.SQLState()]++
			}
			for i := range 15 {
				name := fmt.Sprintf("x%d_%d", n, i)
				switch rng.IntN(7) {
				case 0:
					exec("CREATE DATABASE "+name, "database "+name, true)
					if rng.IntN(2) == 0 {
						exec("DROP DATABASE "+name, "database "+name, false)
					}
				case 1:
					exec("CREATE GROUP "+name+" IN %s KEY (int) BY HASH", "group "+name, true)
					if rng.IntN(2) == 0 {
						exec("DROP GROUP "+name+" IN %s", "group "+name, false)
					}
				case 2:
					exec("ALTER ROUTINE %s.public."+name+" SHARD SAFE", "routine "+name, true)
				case 3:
					key := fmt.Sprint(n*1000 + i)
					exec("PIN KEY ("+key+") OF %s.p ON b", "pin "+key, true)
					if rng.IntN(2) == 0 {
						exec("UNPIN KEY ("+key+") OF %s.p", "pin "+key, false)
					}
				case 4:
					exec([]string{"DISTRIBUTE TABLE %s.public.keyed IN GROUP g KEY (k)", "UNDISTRIBUTE TABLE %s.public.keyed"}[rng.IntN(2)], "", false)
				case 5:
					exec([]string{"DISTRIBUTE TABLE %s.public.codes AS REFERENCE", "UNDISTRIBUTE TABLE %s.public.codes"}[rng.IntN(2)], "", false)
				case 6:
					exec([]string{"DISTRIBUTE SCHEMA %s.tenant ON b", "UNDISTRIBUTE SCHEMA %s.tenant"}[rng.IntN(2)], "", false)
				}
			}
		})
	}
	all.Wait()
	doc := w.agree(t)
	have := map[string]bool{}
	for _, x := range doc.Databases {
		have["database "+x.Name] = true
	}
	for _, x := range doc.Groups {
		have["group "+x.Name] = true
	}
	for _, x := range doc.Routines {
		have["routine "+x.Name] = true
	}
	for _, p := range doc.Placements {
		for _, x := range p.Pins {
			have["pin "+x.Key[0]] = true
		}
	}
	for thing, there := range is {
		if have[thing] != there {
			t.Errorf("%s is there: %t, as was told: %t", thing, have[thing], there)
		}
	}
	if len(doc.Attempts) > 0 {
		t.Errorf("attempts are left: %v", doc.Attempts[0])
	}
	t.Logf("%v", count)
	w.whole(t)
}
