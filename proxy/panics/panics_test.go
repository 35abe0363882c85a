package panics

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
)

func TestCatch(t *testing.T) {
	var said bytes.Buffer
	LogTo(slog.New(slog.NewTextHandler(&said, nil)))
	defer LogTo(nil)
	fault := errors.New("a fault")
	if err := Catch(Session, func() error { return fault }, nil); !errors.Is(err, fault) || Is(err) || said.Len() > 0 {
		t.Error(err, said.String())
	}
	before := Count(Session)
	err := Catch(Session, func() error { panic("secret") }, func() []any { return []any{"client", 7} })
	if !Is(err) || Count(Session) != before+1 || strings.Contains(err.Error(), "secret") {
		t.Error(err, Count(Session))
	}
	for _, want := range []string{"panic=secret", "part=session", "client=7", "TestCatch"} {
		if !strings.Contains(said.String(), want) {
			t.Errorf("no %s in %s", want, said.String())
		}
	}
	said.Reset()
	if err := Catch(Session, func() error { panic("x") }, func() []any { panic("y") }); !Is(err) || !strings.Contains(said.String(), "about=y") {
		t.Error(err, said.String())
	}
}

func TestKeepBeginsAgain(t *testing.T) {
	LogTo(slog.New(slog.DiscardHandler))
	defer LogTo(nil)
	runs := 0
	if err := Keep(t.Context(), "test", func(context.Context) error {
		if runs++; runs < 3 {
			panic("again")
		}
		return nil
	}); err != nil || runs != 3 {
		t.Error(err, runs)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if err := Keep(ctx, "test", func(context.Context) error { cancel(); panic("last") }); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
