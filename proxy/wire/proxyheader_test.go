package wire

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
)

// header2 is a version 2 header.
func header2(command, family byte, body string) string {
	return string(signature2) + string([]byte{command, family, byte(len(body) >> 8), byte(len(body))}) + body
}

// checked adds the field with the checksum, which is off by wrong.
func checked(body string, wrong uint32) string {
	h := []byte(header2(0x21, 0x11, body+"\x03\x00\x04\x00\x00\x00\x00"))
	sum := crc32.Checksum(h, crc32.MakeTable(crc32.Castagnoli)) + wrong
	binary.BigEndian.PutUint32(h[len(h)-4:], sum)
	return string(h)
}

const (
	four = "\xc0\x00\x02\x01\xc0\x00\x02\x02\x12\x34\x15\x38"
	six  = "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x12\x34\x15\x38"
)

func TestProxyHeader(t *testing.T) {
	for _, c := range []struct{ name, in, remote, local string }{
		{"TCP4", "PROXY TCP4 192.0.2.1 192.0.2.2 4660 5432\r\n", "192.0.2.1:4660", "192.0.2.2:5432"},
		{"TCP6", "PROXY TCP6 2001:db8::1 2001:db8::2 4660 5432\r\n", "[2001:db8::1]:4660", "[2001:db8::2]:5432"},
		{"unknown", "PROXY UNKNOWN\r\n", "", ""},
		{"unknown with more", "PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n", "", ""},
		{"binary TCP4", header2(0x21, 0x11, four), "192.0.2.1:4660", "192.0.2.2:5432"},
		{"binary TCP6", header2(0x21, 0x21, six), "[2001:db8::1]:4660", "[2001:db8::2]:5432"},
		{"binary Unix", header2(0x21, 0x31, strings.Repeat("/", 216)), "", ""},
		{"binary unknown", header2(0x21, 0x00, ""), "", ""},
		{"binary unknown with a field", header2(0x21, 0x00, "\x04\x00\x01\x00"), "", ""},
		{"the balancer's own", header2(0x20, 0x00, ""), "", ""},
		{"the balancer's own, with addresses", header2(0x20, 0x11, four), "", ""},
		{"the balancer's own, with anything", header2(0x20, 0x7f, "xyz"), "", ""},
		{"fields", header2(0x21, 0x11, four+"\x04\x00\x03abc\x20\x00\x00"), "192.0.2.1:4660", "192.0.2.2:5432"},
		{"checksum", checked(four+"\x04\x00\x01x", 0), "192.0.2.1:4660", "192.0.2.2:5432"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h, n, err := ParseProxyHeader([]byte(c.in + "and more"))
			if err != nil || n != len(c.in) {
				t.Fatalf("%v, %d bytes of %d", err, n, len(c.in))
			}
			for _, x := range []struct {
				got  netip.AddrPort
				want string
			}{{h.Remote, c.remote}, {h.Local, c.local}} {
				if x.want == "" && x.got.IsValid() || x.want != "" && x.got.String() != x.want {
					t.Errorf("%v, want %s", x.got, x.want)
				}
			}
		})
	}
}

func TestProxyHeaderThatIsNone(t *testing.T) {
	for name, in := range map[string]string{
		"a startup packet":       "\x00\x00\x00\x08\x04\xd2\x16\x2f",
		"HTTP":                   "GET / HTTP/1.1\r\n",
		"another word":           "PROXYTCP4",
		"no end":                 "PROXY UNKNOWN " + strings.Repeat("x", 200),
		"an end too late":        "PROXY UNKNOWN " + strings.Repeat("x", 92) + "\r\n",
		"no family":              "PROXY \r\n",
		"UDP":                    "PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n",
		"a name":                 "PROXY TCP4 localhost 192.0.2.2 1 2\r\n",
		"the other family":       "PROXY TCP4 ::1 ::2 1 2\r\n",
		"the other family, 6":    "PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n",
		"a zone":                 "PROXY TCP6 fe80::1%eth0 fe80::2 1 2\r\n",
		"a high port":            "PROXY TCP4 192.0.2.1 192.0.2.2 65536 2\r\n",
		"a port with a zero":     "PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n",
		"two spaces":             "PROXY TCP4  192.0.2.1 192.0.2.2 1 2\r\n",
		"more words":             "PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n",
		"version 1 in binary":    header2(0x11, 0x11, four),
		"version 3":              header2(0x31, 0x11, four),
		"another command":        header2(0x22, 0x11, four),
		"binary UDP":             header2(0x21, 0x12, four),
		"another family":         header2(0x21, 0x41, four),
		"addresses cut short":    header2(0x21, 0x11, four[:11]),
		"a field cut short":      header2(0x21, 0x11, four+"\x04\x00\x09abc"),
		"a field's head":         header2(0x21, 0x11, four+"\x04\x00"),
		"too long":               header2(0x21, 0x11, four+strings.Repeat("\x04\x00\x00", 1400)),
		"a wrong checksum":       checked(four, 1),
		"a checksum of one byte": header2(0x21, 0x11, four+"\x03\x00\x01x"),
	} {
		if _, n, err := ParseProxyHeader([]byte(in)); n != 0 || !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %d bytes, %v", name, n, err)
		}
	}
}

// A header that comes byte by byte is read like one that comes at once, and what is behind it is left.
func TestProxyHeaderInPieces(t *testing.T) {
	for _, in := range []string{"PROXY TCP4 192.0.2.1 192.0.2.2 4660 5432\r\n", checked(four, 0), header2(0x20, 0, "")} {
		client, server := net.Pipe()
		go func() {
			for i := range len(in) {
				_, _ = client.Write([]byte(in[i : i+1]))
			}
			_, _ = client.Write([]byte("\x00\x00\x00\x08\x04\xd2\x16\x2f"))
			_ = client.Close()
		}()
		c := New(server, 1000)
		if _, err := c.ReadProxyHeader(); err != nil {
			t.Errorf("%q: %v", in, err)
		}
		if code, _, err := c.ReadStartup(); code != SSLCode || err != nil {
			t.Errorf("%q: behind it came %d, %v", in, code, err)
		}
	}
	client, server := net.Pipe()
	_ = client.Close()
	if _, err := New(server, 1000).ReadProxyHeader(); !errors.Is(err, io.EOF) {
		t.Errorf("%v", err)
	}
	client, server = net.Pipe()
	go func() { _, _ = client.Write([]byte("PROXY T")); _ = client.Close() }()
	if _, err := New(server, 1000).ReadProxyHeader(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%v", err)
	}
}

// Where a header ends depends on its own bytes alone: not on how many have come, nor on what comes behind it.
func FuzzProxyHeader(f *testing.F) {
	for _, s := range []string{"PROXY TCP4 192.0.2.1 192.0.2.2 4660 5432\r\n", "PROXY UNKNOWN\r\n", header2(0x21, 0x21, six), header2(0x20, 0, ""), checked(four, 0)} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, n, err := ParseProxyHeader(b)
		switch {
		case err != nil:
			if _, n, again := ParseProxyHeader(append(b[:len(b):len(b)], "\r\n"...)); again == nil {
				t.Fatalf("refused, and with more behind it taken with %d bytes", n)
			}
			return
		case n > len(b) || n < 0 || h.Remote.IsValid() != h.Local.IsValid():
			t.Fatalf("%d bytes of %d: %v", n, len(b), h)
		case n == 0:
			if len(b) >= maxHeader2 {
				t.Fatalf("%d bytes are not enough", len(b))
			}
			return
		}
		for i := range n {
			if _, m, err := ParseProxyHeader(b[:i]); m != 0 || err != nil {
				t.Fatalf("the first %d bytes of %d: %d, %v", i, n, m, err)
			}
		}
		if again, m, err := ParseProxyHeader(append(b[:n:n], "PROXY \r\n\x00"...)); again != h || m != n || err != nil {
			t.Fatalf("with something else behind it: %v, %d, %v", again, m, err)
		}
	})
}
