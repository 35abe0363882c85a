package auth

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/xdg-go/scram"
)

func TestHBARulesMatchAsPostgreSQLs(t *testing.T) {
	maps, err := ParseIdent("# MAPNAME SYSTEM PG\npeople  alice  app\npeople \"bob smith\" other\n")
	if err != nil {
		t.Fatal(err)
	}
	rules, err := ParseHBA(`
# a comment
local   all        all                    trust
host    shop,other "app", x  10.0.0.0/8   scram-sha-256   # behind a line
host    sameuser   all  192.168.0.0 255.255.0.0 reject
hostssl all        app  all               cert map=people
hostnossl all      all  ::1/128           scram-sha-256
hostssl all        all  127.0.0.0/8       password clientcert=verify-full
`, maps)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		db, user, from string
		origin         Origin
		want           Method
	}{
		{"any", "any", "", Local, Trust},
		{"shop", "app", "10.1.2.3", Plain, SCRAM},
		{"other", "x", "10.1.2.3", TLS, SCRAM},
		{"third", "app", "10.1.2.3", Plain, Reject},
		{"app", "app", "192.168.7.7", Plain, Reject},
		{"shop", "app", "8.8.8.8", TLS, Cert},
		{"shop", "app", "8.8.8.8", Plain, Reject},
		{"shop", "y", "::1", Plain, SCRAM},
		{"shop", "y", "::ffff:127.0.0.1", TLS, Password},
	} {
		a := Attempt{Database: c.db, User: c.user, Origin: c.origin}
		if c.from != "" {
			a.From = netip.MustParseAddr(c.from)
		}
		if r := Match(rules, a); r.Method != c.want {
			t.Errorf("%+v: %v", c, r.Method)
		}
	}
	r := Match(rules, Attempt{Database: "shop", User: "app", From: netip.MustParseAddr("8.8.8.8"), Origin: TLS})
	if !r.CertUser("alice", "app") || r.CertUser("alice", "root") || r.CertUser("bob smith", "app") || r.CertUser("", "app") {
		t.Error("the map of names is not kept")
	}
	if r := Match(rules, Attempt{Database: "shop", User: "y", From: netip.MustParseAddr("127.0.0.1"), Origin: TLS}); !r.ClientCert || !r.CertName {
		t.Errorf("verify-full asks for certificate %v, name %v", r.ClientCert, r.CertName)
	}
	if r := Match(rules, Attempt{Database: "shop", User: "y", From: netip.MustParseAddr("::1%lo"), Origin: Plain}); r.Method != SCRAM {
		t.Errorf("an address with a zone is in no network: %v", r.Method)
	}
}

func TestVerifiersOfManyIterations(t *testing.T) {
	keys := strings.Repeat("A", 43) + "="
	for n, ok := range map[string]bool{"4096": true, "1000000": true, "1000001": false, "9000000000000000000": false, "0": false} {
		if _, err := ParseVerifier("SCRAM-SHA-256$" + n + ":c2FsdA==$" + keys + ":" + keys); (err == nil) != ok {
			t.Errorf("%s iterations: %v", n, err)
		}
	}
}

func TestHBAMistakesAreExplained(t *testing.T) {
	for text, want := range map[string]string{
		"hots all all all trust":                           "connection type",
		"host all all":                                     "address is missing",
		"host all all all":                                 "method is missing",
		"host all all 10.0.0.0/33 reject":                  "no network",
		"host all all 10.0.0.0 255.0.255.0 reject":         "no mask",
		"host all all all trust":                           "loopback",
		"host all all 0.0.0.0/0 trust":                     "loopback",
		"host all all all md5":                             "method",
		"host all all all cert":                            "hostssl",
		"host all all all password":                        "hostssl",
		"hostssl all all all cert map=nosuch":              "no map",
		"host all all samehost reject":                     "not supported",
		"host all +admins all scram-sha-256":               "not supported",
		"host all all all scram-sha-256 frob=1":            "not supported",
		"host \"all all all reject":                        "not closed",
		"host \"all\" all all scram-sha-256":               "in quotes",
		"host all app,\"all\" all scram-sha-256":           "in quotes",
		"host \"sameuser\" all all scram-sha-256 # x":      "in quotes",
		"\n\nlocal all all trust\nhost x":                  "line 4",
		"host all all all " + strings.Repeat("x", maxLine): "longer",
	} {
		if _, err := ParseHBA(text, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: %v, want something with %q", text, err, want)
		}
	}
}

// exchange runs a whole SCRAM exchange and returns the server's side.
func exchange(t *testing.T, cred Credential, client *scram.ClientConversation, b Binding, plus bool) (*Exchange, error) {
	t.Helper()
	ex, err := Begin(cred, b, plus)
	if err != nil {
		t.Fatal(err)
	}
	in := ""
	for {
		msg, err := client.Step(in)
		if err != nil {
			return ex, err
		}
		out, done, err := ex.Step([]byte(msg))
		if err != nil {
			return ex, err
		}
		in = string(out)
		if done {
			_, err := client.Step(in)
			return ex, err
		}
	}
}

// The keys that a client proves log in elsewhere, where the same verifier is stored; the password is not needed.
func TestKeysOfAnExchangeLogInWithoutThePassword(t *testing.T) {
	cred, err := NewCredential("sesame")
	if err != nil {
		t.Fatal(err)
	}
	c, err := scram.SHA256.NewClient("", "sesame", "")
	if err != nil {
		t.Fatal(err)
	}
	ex, err := exchange(t, cred, c.NewConversation(), Binding{}, false)
	if err != nil || !ex.Keys().Known() {
		t.Fatalf("%v, keys known: %v", err, ex.Keys().Known())
	}
	again, err := Begin(cred, Binding{}, false) // plays the shard
	if err != nil {
		t.Fatal(err)
	}
	cl := NewClient(ex.Keys())
	first, _, err := again.Step(cl.First())
	if err != nil {
		t.Fatal(err)
	}
	final, err := cl.Final(first)
	if err != nil {
		t.Fatal(err)
	}
	last, done, err := again.Step(final)
	if err != nil || !done {
		t.Fatalf("%v %v", done, err)
	}
	if err := cl.Verify(last); err != nil {
		t.Error(err)
	}
	if err := cl.Verify([]byte("v=AAAA")); err == nil {
		t.Error("a server that does not know the verifier was believed")
	}
	other, _ := NewCredential("sesame") // the same password, another salt: another verifier
	wrong, _ := Begin(other, Binding{}, false)
	cl = NewClient(ex.Keys())
	first, _, _ = wrong.Step(cl.First())
	if final, err := cl.Final(first); err == nil {
		if _, _, err := wrong.Step(final); err == nil {
			t.Error("keys of another verifier were taken")
		}
	}
	bad, _ := scram.SHA256.NewClient("", "guess", "")
	if ex, err := exchange(t, cred, bad.NewConversation(), Binding{}, false); err == nil || ex.Keys().Known() {
		t.Error("a wrong password gave keys")
	}
	for _, user := range []string{"a", "a", "b"} { // whoever does not exist has a salt, always the same
		if f := (Salts{}).Fake(user, Iterations); f.stored.Salt != (Salts{}).Fake(user, Iterations).stored.Salt || f.Check("") {
			t.Error("a user that does not exist can be told from one that does")
		}
	}
}

func FuzzHBA(f *testing.F) {
	f.Add("host all all all scram-sha-256", "m a b", `"u" "p"`)
	f.Add("hostssl \"a b\",c all 10.0.0.0 255.0.0.0 cert map=m # x", "m \"a b\" c\n", "; x\n\"a\"\"b\" \"SCRAM-SHA-256$1:a$b:c\" \"\"")
	f.Fuzz(func(t *testing.T, hba, ident, users string) {
		maps, err := ParseIdent(ident)
		if err != nil {
			maps = nil
		}
		rules, err := ParseHBA(hba, maps)
		if err == nil {
			for _, r := range rules { // whatever is read lets nobody in from afar without proof
				if r.Method == Trust && r.matches(Attempt{Database: "d", User: "u", From: netip.MustParseAddr("8.8.8.8"), Origin: Plain}) {
					t.Errorf("%q trusts the world", hba)
				}
			}
		}
		if list, err := ParseUserlist(users); err == nil {
			for _, u := range list {
				if u[0] == "" {
					t.Errorf("%q gives a user without a name", users)
				}
				_, _ = ParseVerifier(u[1])
			}
		}
	})
}

func FuzzExchange(f *testing.F) {
	cred, err := NewCredential("sesame")
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte("n,,n=,r=abc"), []byte("c=biws,r=abcdef,p=AAAA"), false)
	f.Add([]byte("p=tls-server-end-point,,n=,r=abc"), []byte("c=,r=,p="), true)
	f.Fuzz(func(t *testing.T, first, final []byte, plus bool) {
		b := Binding{}
		if plus {
			b = Binding{[]byte("hash")}
		}
		ex, err := Begin(cred, b, plus)
		if err != nil {
			return
		}
		if _, done, err := ex.Step(first); err != nil || done {
			if done {
				t.Error("let in by the first message")
			}
			return
		}
		if _, done, err := ex.Step(final); done && err == nil {
			t.Errorf("let in by %q and %q", first, final)
		}
		cl := NewClient(Keys{make([]byte, 32), make([]byte, 32)})
		_, _ = cl.Final(first)
		_ = cl.Verify(final)
	})
}

// A salt follows from the key and the name alone: another process, or the same one after a restart, makes the same.
func TestSaltsFollowFromKeyAndName(t *testing.T) {
	s := Salts{Key: []byte("key")}
	real, err := s.Credential("ada", "sesame")
	if err != nil {
		t.Fatal(err)
	}
	const want = "cIpyfSR1NX6qzE+IyA1+7A=="
	for _, c := range []Credential{real, s.Fake("ada", Iterations)} {
		if _, rest, _ := strings.Cut(c.Verifier(), "$"); !strings.HasPrefix(rest, "4096:"+want+"$") {
			t.Errorf("%s, want the salt %s", rest, want)
		}
	}
	if f := s.Fake("ada", 10000); f.stored.Iters != 10000 || f.Check("sesame") {
		t.Error("not as it was asked for")
	}
	if s.of("bob") == s.of("ada") || (Salts{Key: []byte("other")}).of("ada") == s.of("ada") {
		t.Error("two names, or two keys, have one salt")
	}
}
