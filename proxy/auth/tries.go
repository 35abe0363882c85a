package auth

import (
	"container/list"
	"net/netip"
	"sync"
	"time"
)

// TryWindow is how long failed logins count: from the first of them on.
const TryWindow = time.Minute

const (
	addressFactor = 10    // an address may fail so many times as often as one user from it
	mostTries     = 10000 // users with their addresses, and addresses, that are remembered
	longestName   = 64    // bytes of a name that count: PostgreSQL's own are shorter
)

// Verdict is what becomes of a login before its password is asked for.
type Verdict int

// The verdicts on a login.
const (
	Welcome Verdict = iota
	Slow            // it has to wait a moment, right or wrong
	Barred          // it is turned away
)

// Tries counts failed logins and judges those that come next. A user is barred from the address that failed, and nobody else:
// behind a balancer one address is everybody. An address that fails with many names is slowed down as a whole. Those who
// must always get in are slowed down where others are barred; the wait comes before the password, so that it tells nothing.
// The zero value is ready. Any goroutine may call it.
type Tries struct {
	mu        sync.Mutex // guards the rest
	users     failures[userFrom]
	addresses failures[netip.Addr]
}

type userFrom struct {
	user string
	from netip.Addr
}

// Judge says what becomes of a login before it is asked for its password, where limit failures within TryWindow are too many. 0 is no limit. always means that the
// right password must get in whatever others did under the same name.
func (t *Tries) Judge(now time.Time, from netip.Addr, user string, limit int, always bool) Verdict {
	from = origin(from)
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.judge(now, from, user, limit, always)
}

// Tried is Judge for a login of which it is known whether its password is right, and counts it if not, unless it is barred. Of many that come together, it
// is heard of no more than may fail.
func (t *Tries) Tried(now time.Time, from netip.Addr, user string, limit int, always, right bool) Verdict {
	from = origin(from)
	t.mu.Lock()
	defer t.mu.Unlock()
	v := t.judge(now, from, user, limit, always)
	if v != Barred && !right {
		t.users.add(now, userFrom{clip(user), from})
		t.addresses.add(now, from)
	}
	return v
}

func (t *Tries) judge(now time.Time, from netip.Addr, user string, limit int, always bool) Verdict {
	if limit <= 0 {
		return Welcome
	}
	switch tooMany := t.users.count(now, userFrom{clip(user), from}) >= limit; {
	case tooMany && !always:
		return Barred
	case tooMany, t.addresses.count(now, from) >= limit*addressFactor:
		return Slow
	}
	return Welcome
}

// origin is whose failures are counted together: whoever has an IPv6 address has its whole network.
func origin(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	if a.Is6() && !a.IsLoopback() {
		p, _ := a.Prefix(64) // never fails for a length in range
		return p.Addr()
	}
	return a
}

func clip(user string) string { return string([]byte(user[:min(len(user), longestName)])) }

// failures counts by key. What began first is forgotten first: to have a count of its own forgotten, one must fail under
// mostTries other keys.
type failures[K comparable] struct {
	by    map[K]*list.Element
	order list.List // of *failure, by since
}

type failure[K comparable] struct {
	key   K
	n     int
	since time.Time
}

func (f *failures[K]) count(now time.Time, key K) int {
	e := f.by[key]
	if e == nil {
		return 0
	}
	x := e.Value.(*failure[K])
	if now.Sub(x.since) >= TryWindow {
		return 0
	}
	return x.n
}

func (f *failures[K]) add(now time.Time, key K) {
	if f.count(now, key) > 0 {
		f.by[key].Value.(*failure[K]).n++
		return
	}
	if old := f.by[key]; old != nil {
		f.order.Remove(old)
	} else if len(f.by) >= mostTries {
		first := f.order.Front()
		delete(f.by, f.order.Remove(first).(*failure[K]).key)
	}
	if f.by == nil {
		f.by = map[K]*list.Element{}
	}
	f.by[key] = f.order.PushBack(&failure[K]{key, 1, now})
}
