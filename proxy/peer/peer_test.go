package peer

import (
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"
)

// serve answers questions with a key until the test ends, and counts those that it answered.
func serve(t testing.TB, key string) (addr string, errs chan error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	errs = make(chan error, 100)
	go func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			var hello [8 + nonceBytes]byte
			_, err = io.ReadFull(nc, hello[:])
			if err == nil {
				err = Answer(nc, []byte(key), hello[8:], func(list []Process) []Owner {
					out := make([]Owner, len(list))
					for i, p := range list {
						out[i] = Owner{p.PID + 1, time.Unix(int64(p.PID), 0)}
					}
					return out
				})
			}
			_ = nc.Close()
			errs <- err
		}
	}()
	return l.Addr().String(), errs
}

func TestAsk(t *testing.T) {
	addr, errs := serve(t, "the shared key")
	list := []Process{{"shop", "s1", 7}, {"shop", "s2", 9}}
	got, err := Ask(t.Context(), addr, []byte("the shared key"), list)
	if err != nil || <-errs != nil || fmt.Sprint(got[0].Client, got[1].Client, got[1].Since.Unix()) != "8 10 9" {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := Ask(t.Context(), addr, []byte("another key"), list); err == nil {
		t.Error("another key was good enough")
	}
	if err := <-errs; !errors.Is(err, ErrKey) {
		t.Errorf("the other side says %v", err)
	}
}

// What is not a peer gets nothing, and an answer that was heard once is worth nothing afterwards.
func TestStrangers(t *testing.T) {
	addr, errs := serve(t, "the shared key")
	for _, say := range []string{"", "\x00\x00\x00\x02[]", "\xff\xff\xff\xff", "\x00\x00\x00\x02[]" + string(talk{[]byte("the shared key"), make([]byte, nonceBytes), make([]byte, challengeBytes)}.sum("question", []byte("[]")))} {
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = nc.Write(append(make([]byte, 8+nonceBytes), say...))
		_ = nc.(*net.TCPConn).CloseWrite()
		heard, _ := io.ReadAll(nc)
		if len(heard) > challengeBytes {
			t.Errorf("%q was answered: %q", say, heard)
		}
		if err := <-errs; err == nil {
			t.Errorf("%q was taken", say)
		}
		_ = nc.Close()
	}
}

// Somebody in the other's place, who has heard a question and its answer, says the same challenge and the same answer again: it answers
// another question, from before, and is not believed. Nor is a process of another version, which hangs up, or is hung up on.
func TestAnswersAreNotSaidAgain(t *testing.T) {
	key := []byte("the shared key")
	addr, _ := serve(t, string(key))
	list := []Process{{"shop", "s1", 7}}
	all := make(chan []byte, 1)
	between := func(answer func(asks net.Conn)) string {
		t.Helper()
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		go func() {
			asks, err := l.Accept()
			if err == nil {
				answer(asks)
				_ = asks.Close()
			}
		}()
		return l.Addr().String()
	}
	got, err := Ask(t.Context(), between(func(asks net.Conn) {
		real, err := net.Dial("tcp", addr)
		if err != nil {
			t.Error(err)
			return
		}
		defer real.Close()
		go func() { _, _ = io.Copy(real, asks) }()
		heard, _ := io.ReadAll(io.TeeReader(real, asks))
		all <- heard
	}), key, list)
	if err != nil || got[0].Client != 8 {
		t.Fatalf("by way of somebody who listens: %v, %v", got, err)
	}
	heard := <-all
	got, err = Ask(t.Context(), between(func(asks net.Conn) {
		_, _ = asks.Write(heard)
		_ = asks.(*net.TCPConn).CloseWrite()
		_, _ = io.Copy(io.Discard, asks)
	}), key, list)
	if !errors.Is(err, ErrKey) {
		t.Errorf("an answer was taken a second time: %v, %v", got, err)
	}
	if _, err := Ask(t.Context(), between(func(asks net.Conn) { // as an older version reads the packet, whose code it does not know
		_, _ = io.ReadFull(asks, make([]byte, 8+nonceBytes))
	}), key, list); !errors.Is(err, errHungUp) {
		t.Errorf("an older version: %v", err)
	}
	us, them := net.Pipe()
	defer us.Close()
	if err := Answer(them, key, nil, nil); err == nil {
		t.Error("a question without a nonce was taken")
	}
}

func FuzzRead(f *testing.F) {
	talk := talk{[]byte("k"), []byte("n"), []byte("c")}
	f.Add([]byte("\x00\x00\x00\x02[]"), true)
	f.Add([]byte("[{\"database\":\"a\",\"shard\":\"b\",\"pid\":3}]"), false)
	f.Fuzz(func(t *testing.T, data []byte, raw bool) {
		r, w := net.Pipe()
		go func() {
			if !raw { // a body that is signed
				data = append(append([]byte{0, 0, byte(len(data) >> 8), byte(len(data))}, data...), talk.sum("question", data)...)
			}
			_, _ = w.Write(data)
			_ = w.Close()
		}()
		var list []Process
		if err := talk.read(r, "question", &list); err == nil && raw {
			t.Fatal("an unsigned message was taken")
		}
		_ = r.Close()
	})
}
