package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/netip"
	"strconv"
	"strings"
)

// ProxyHeader is what a balancer says of a client before the client's first byte: the PROXY protocol, versions 1 and 2,
// https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt. Addresses that are not valid mean that it names no client: the
// connection is the balancer's own, or the client came by something else than TCP.
type ProxyHeader struct{ Remote, Local netip.AddrPort }

// The bounds of a header, in bytes.
const (
	maxHeader1 = 107              // the protocol's own
	maxHeader2 = headStart + 4096 // longer ones hold more than anybody sends
	headStart  = 16               // of version 2, before the addresses
)

var (
	signature1 = []byte("PROXY ")
	signature2 = []byte("\r\n\r\n\x00\r\nQUIT\n")
)

// StartsProxyHeader says whether a connection's first byte may be that of a header. No startup packet begins with it.
func StartsProxyHeader(b byte) bool { return b == signature1[0] || b == signature2[0] }

// ReadProxyHeader reads a header, and nothing behind it. io.EOF means that nothing came.
func (c *Conn) ReadProxyHeader() (ProxyHeader, error) {
	for {
		if err := c.fill(c.Pending() + 1); err != nil {
			if c.Pending() > 0 {
				err = unexpected(err)
			}
			return ProxyHeader{}, err
		}
		h, n, err := ParseProxyHeader(c.buf[c.pos:c.end])
		if err != nil {
			return h, err
		}
		if n > 0 {
			c.pos += n
			return h, nil
		}
	}
}

// ParseProxyHeader reads the header that b begins with, and says how long it is. 0 means that b may be the beginning of one:
// more is needed.
func ParseProxyHeader(b []byte) (h ProxyHeader, n int, err error) {
	switch {
	case begins(b, signature1):
		h, n, err = parseHeader1(b)
	case begins(b, signature2):
		h, n, err = parseHeader2(b)
	default:
		err = errors.New("it does not begin as one")
	}
	if err != nil {
		return ProxyHeader{}, 0, fmt.Errorf("%w: PROXY protocol header: %w", ErrMalformed, err)
	}
	return h, n, nil
}

// begins says whether b begins with a signature, as far as it has come.
func begins(b, signature []byte) bool {
	n := min(len(b), len(signature))
	return bytes.Equal(b[:n], signature[:n])
}

// parseHeader1 reads a line such as "PROXY TCP4 192.0.2.1 192.0.2.2 56324 443".
func parseHeader1(b []byte) (h ProxyHeader, n int, err error) {
	line, _, whole := bytes.Cut(b[:min(len(b), maxHeader1)], []byte("\r\n"))
	switch {
	case !whole && len(b) >= maxHeader1:
		return h, 0, errors.New("its line does not end")
	case !whole:
		return h, 0, nil
	}
	n = len(line) + 2
	f := strings.Split(string(line), " ")
	if f[1] == "UNKNOWN" {
		return h, n, nil
	}
	if len(f) != 6 || f[1] != "TCP4" && f[1] != "TCP6" {
		return h, 0, errors.New("it names neither TCP4, TCP6 nor UNKNOWN with its addresses")
	}
	if h.Remote, err = endpoint(f[1], f[2], f[4]); err == nil {
		h.Local, err = endpoint(f[1], f[3], f[5])
	}
	return h, n, err
}

func endpoint(family, addr, port string) (netip.AddrPort, error) {
	a, err := netip.ParseAddr(addr)
	if err != nil || a.Is4() != (family == "TCP4") || a.Zone() != "" {
		return netip.AddrPort{}, fmt.Errorf("%.50q is no address of %s", addr, family)
	}
	p, err := strconv.ParseUint(port, 10, 16)
	if err != nil || strconv.FormatUint(p, 10) != port {
		return netip.AddrPort{}, fmt.Errorf("%.50q is no port", port)
	}
	return netip.AddrPortFrom(a, uint16(p)), nil
}

// parseHeader2 reads a binary header: signature, version and command, family, length, addresses, fields.
func parseHeader2(b []byte) (h ProxyHeader, n int, err error) {
	if len(b) < headStart {
		return h, 0, nil
	}
	n = headStart + int(binary.BigEndian.Uint16(b[14:]))
	command, family := b[12], b[13]
	switch {
	case command>>4 != 2:
		return h, 0, fmt.Errorf("version %d is unknown", command>>4)
	case command&15 > 1:
		return h, 0, fmt.Errorf("command %d is unknown", command&15)
	case n > maxHeader2:
		return h, 0, fmt.Errorf("it has %d bytes", n)
	case len(b) < n:
		return h, 0, nil
	case command&15 == 0: // LOCAL: the balancer's own connection, whatever else is said
		return h, n, nil
	}
	size, ok := map[byte]int{0x00: 0, 0x11: 4, 0x21: 16, 0x31: 108}[family] // of one address; TCP has a port of 2 bytes, too
	if !ok {
		return h, 0, fmt.Errorf("address family %#02x is none of a stream's", family)
	}
	whole := 2 * size
	if family == 0x11 || family == 0x21 {
		whole += 4
	}
	body := b[headStart:n]
	if len(body) < whole {
		return h, 0, errors.New("its addresses are cut short")
	}
	if family == 0x11 || family == 0x21 {
		from, _ := netip.AddrFromSlice(body[:size]) // has one of the two sizes
		to, _ := netip.AddrFromSlice(body[size : 2*size])
		h.Remote = netip.AddrPortFrom(from, binary.BigEndian.Uint16(body[2*size:]))
		h.Local = netip.AddrPortFrom(to, binary.BigEndian.Uint16(body[2*size+2:]))
	}
	return h, n, checkFields(b[:n], headStart+whole)
}

// fieldChecksum is the field that holds a CRC-32C of the whole header, itself taken as 0.
const fieldChecksum = 3

// checkFields looks at the fields that begin at a place of a header: none matters but the checksum, which must be right.
func checkFields(header []byte, at int) error {
	for at < len(header) {
		if len(header)-at < 3 {
			return io.ErrUnexpectedEOF
		}
		kind, size := header[at], int(binary.BigEndian.Uint16(header[at+1:]))
		at += 3
		if len(header)-at < size {
			return io.ErrUnexpectedEOF
		}
		if kind == fieldChecksum {
			if size != 4 {
				return errors.New("its checksum has not 4 bytes")
			}
			b := bytes.Clone(header)
			clear(b[at : at+4])
			if crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) != binary.BigEndian.Uint32(header[at:]) {
				return errors.New("its checksum is wrong")
			}
		}
		at += size
	}
	return nil
}
