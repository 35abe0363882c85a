package auth

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestFailedLoginsCountByUserAndAddress(t *testing.T) {
	var (
		now  = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		here = netip.MustParseAddr("10.0.0.1")
		far  = netip.MustParseAddr("10.0.0.2")
	)
	tries := &Tries{}
	judge := func(at time.Duration, from netip.Addr, user string, always bool, want Verdict) {
		t.Helper()
		if got := tries.Judge(now.Add(at), from, user, 3, always); got != want {
			t.Errorf("%s from %s after %s: %v, want %v", user, from, at, got, want)
		}
	}
	for range 2 {
		tries.Tried(now, here, "app", 0, false, false)
	}
	judge(0, here, "app", false, Welcome)
	tries.Tried(now.Add(time.Second), here, "app", 0, false, false)
	judge(time.Second, here, "app", false, Barred)
	judge(time.Second, netip.MustParseAddr("::ffff:10.0.0.1"), "app", false, Barred)
	judge(time.Second, here, "app", true, Slow) // the console's
	judge(time.Second, here, "other", false, Welcome)
	judge(time.Second, far, "app", false, Welcome)
	judge(TryWindow-1, here, "app", false, Barred)
	judge(TryWindow, here, "app", false, Welcome)
	tries.Tried(now.Add(TryWindow), here, "app", 0, false, false) // a new window
	judge(TryWindow, here, "app", false, Welcome)
	if got := tries.Judge(now, here, "app", 0, false); got != Welcome {
		t.Errorf("without a limit: %v", got)
	}
}

// Of many that are known to be wrong at once no more are told than may fail, and no right one behind them.
func TestManyAtOnceAreToldNoMoreThanMayFail(t *testing.T) {
	tries := &Tries{}
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	here := netip.MustParseAddr("10.0.0.1")
	told := 0
	for range 10 {
		if tries.Tried(now, here, "app", 3, false, false) != Barred {
			told++
		}
	}
	if told != 3 {
		t.Errorf("%d are told", told)
	}
	if got := tries.Tried(now, here, "app", 3, false, true); got != Barred {
		t.Errorf("the right one: %v", got)
	}
	if got := tries.Tried(now.Add(TryWindow), here, "app", 3, false, true); got != Welcome {
		t.Errorf("the right one later: %v", got)
	}
}

// Whoever tries many names from one address is slowed down with all that come from there; nobody is locked out by it.
func TestAnAddressThatTriesManyNamesIsSlowedDown(t *testing.T) {
	tries := &Tries{}
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	here := netip.MustParseAddr("2001:db8::1")
	for i := range 3*addressFactor - 1 {
		tries.Tried(now, here, fmt.Sprint("name", i), 0, false, false)
	}
	if got := tries.Judge(now, here, "app", 3, false); got != Welcome {
		t.Errorf("%v", got)
	}
	tries.Tried(now, netip.MustParseAddr("2001:db8::ffff"), "name", 0, false, false) // the same network
	if got := tries.Judge(now, here, "app", 3, false); got != Slow {
		t.Errorf("%v", got)
	}
	if got := tries.Judge(now, netip.MustParseAddr("2001:db8:0:1::1"), "app", 3, false); got != Welcome {
		t.Errorf("another network: %v", got)
	}
}

func TestFailedLoginsAreForgottenInTheirOrder(t *testing.T) {
	tries := &Tries{}
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	here := netip.MustParseAddr("10.0.0.1")
	long := strings.Repeat("x", 9000)
	for range 3 {
		tries.Tried(now, here, "app", 0, false, false)
		tries.Tried(now, here, long, 0, false, false)
	}
	for i := range mostTries - 2 {
		tries.Tried(now, here, fmt.Sprint("name", i), 0, false, false)
	}
	if got := tries.Judge(now, here, "app", 3, false); got != Barred {
		t.Errorf("%v", got)
	}
	tries.Tried(now, here, "one more", 0, false, false)
	if got := tries.Judge(now, here, "app", 3, false); got == Barred {
		t.Error("nothing was forgotten")
	}
	if got := tries.Judge(now, here, long, 3, false); got != Barred {
		t.Errorf("%v", got)
	}
	if n, m := len(tries.users.by), tries.users.order.Len(); n != mostTries || m != mostTries {
		t.Errorf("%d and %d are remembered", n, m)
	}
	for k := range tries.users.by {
		if len(k.user) > longestName {
			t.Fatalf("a name of %d bytes is kept", len(k.user))
		}
	}
}
