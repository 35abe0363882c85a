package wire

import (
	"errors"
	"testing"
)

func TestServerMessagesWithoutTheirBody(t *testing.T) {
	for frame, good := range map[string]bool{
		"Z": false, "ZX": false, "ZII": false, "ZI": true, "C": false, "CSELECT 1": false, "CSELECT\x001": false, "CSELECT 1\x00": true, "C\x00": true,
		"S": false, "Sname\x00": false, "Sname\x00value\x00": true, "Sname\x00value\x00more": false, "E": false, "EM": false, "EMtext\x00": false, "EMtext\x00\x00": true, "N": false,
		"T": false, "T\x00\x01": false, "T\x00\x00": true, "t": false, "t\x00\x01": false, "t\x00\x01\x00\x00\x00\x17": true,
		"D": false, "D\x00\x01": false, "D\x00\x01\x00\x00\x00\x05ab": false, "D\x00\x01\xff\xff\xff\xff": true, "D\x00\x01\x00\x00\x00\x01a": true, "D\x00\x00a": false,
		"G": false, "G\x00\x00\x01": false, "G\x00\x00\x01\x00\x00": true, "A": false, "A\x00\x00\x00\x01c\x00": false, "A\x00\x00\x00\x01c\x00\x00": true, "R": false, "K": false, "1": true,
	} {
		m := Message{frame[0], append([]byte{frame[0], 0, 0, 0, byte(3 + len(frame))}, frame[1:]...)}
		if err := CheckServer(m); (err == nil) != good || err != nil && !errors.Is(err, ErrMalformed) {
			t.Errorf("%q: %v", frame, err)
		}
	}
}
