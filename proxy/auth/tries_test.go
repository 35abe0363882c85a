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
		tries.Failed(now, here, "app")
	}
	judge(0, here, "app", false, Welcome)
	tries.Failed(now.Add(time.Second), here, "app")
	judge(time.Second, here, "app", false, Barred)
	judge(time.Second, netip.MustParseAddr("::ffff:10.0.0.1"), "app", false, Barred)
	judge(time.Second, here, "app", true, Slow) // the console's
	judge(time.Second, here, "other", false, Welcome)
	judge(time.Second, far, "app", false, Welcome)
	judge(TryWindow-1, here, "app", false, Barred)
	judge(TryWindow, here, "app", false, Welcome)
	tries.Failed(now.Add(TryWindow), here, "app") // a new window
	judge(TryWindow, here, "app", false, Welcome)
	if got := tries.Judge(now, here, "app", 0, false); got != Welcome {
		t.Errorf("without a limit: %v", got)
	}
}

// Whoever tries many names from one address is slowed down with all that come from there; nobody is locked out by it.
func TestAnAddressThatTriesManyNamesIsSlowedDown(t *testing.T) {
	tries := &Tries{}
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	here := netip.MustParseAddr("2001:db8::1")
	for i := range 3*addressFactor - 1 {
		tries.Failed(now, here, fmt.Sprint("name", i))
	}
	if got := tries.Judge(now, here, "app", 3, false); got != Welcome {
		t.Errorf("%v", got)
	}
	tries.Failed(now, netip.MustParseAddr("2001:db8::ffff"), "name") // the same network
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
		tries.Failed(now, here, "app")
		tries.Failed(now, here, long)
	}
	for i := range mostTries - 2 {
		tries.Failed(now, here, fmt.Sprint("name", i))
	}
	if got := tries.Judge(now, here, "app", 3, false); got != Barred {
		t.Errorf("%v", got)
	}
	tries.Failed(now, here, "one more")
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
