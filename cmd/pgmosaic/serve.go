package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// signals are what the process is told from outside. Those that end it are taken when the configuration has been read: until then each
// ends it as it does any process, also where a file does not answer.
type signals struct {
	end    chan os.Signal // SIGTERM, SIGINT: when transactions are done; SIGQUIT: at once
	reload chan os.Signal // SIGHUP
	none   chan os.Signal // those that PgBouncer knows, and that mean nothing here
}

func takeSignals() *signals {
	s := &signals{end: make(chan os.Signal, 2), reload: make(chan os.Signal, 1), none: make(chan os.Signal, 1)}
	signal.Notify(s.reload, syscall.SIGHUP)
	signal.Notify(s.none, syscall.SIGUSR1, syscall.SIGUSR2)
	signal.Ignore(syscall.SIGPIPE) // the log's reader may end
	return s
}

// endWithin bounds how long what runs in the background may take to end once nobody is waited for any more.
const endWithin = 10 * time.Second

// serve runs until a signal, or SHUTDOWN. The first signal lets transactions finish, a second one and SIGQUIT do not wait. One that
// comes before the process is ready ends the start.
func serve(ctx context.Context, cfg Config, sig *signals) error {
	if cfg.scratch != "" {
		defer os.RemoveAll(cfg.scratch) // a folder of ours in /tmp
	}
	signal.Notify(sig.end, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT)
	tune()
	sink := newLogSink(os.Stderr, func(lost int, why error) []byte { return missingLines(cfg, lost, why) })
	defer sink.close()
	log, level := newLogger(cfg, sink)
	a, err := startUnless(ctx, sig.end, func(ctx context.Context) (*app, error) { return start(ctx, cfg, log) })
	var told *toldToEnd
	if errors.As(err, &told) {
		log.Info("stopped before it was ready", "signal", told.by)
		return nil
	}
	if err != nil {
		return err
	}
	a.level = level
	a.sink.Store(sink)
	log.Info("ready", "listen", a.server.Addr(), "http", a.cfg.HTTP)
	go a.obey(sig, log)
	drain := max(time.Duration(cfg.Drain), time.Millisecond)
	select {
	case s := <-sig.end:
		if s == syscall.SIGQUIT {
			drain = 0
		}
	case <-a.ended:
	}
	log.Info("draining", "timeout", drain)
	done := make(chan struct{})
	go func() { a.stop(drain); close(done) }()
	var late <-chan time.Time // never, while clients are waited for
	if !a.wait.Load() {
		late = time.After(drain + answerWithin + endWithin)
	}
	for {
		select {
		case <-done:
			log.Info("stopped")
			return nil
		case <-sig.end:
			log.Info("not waiting for transactions any more")
			go a.server.Stop()
			late = time.After(answerWithin + endWithin)
		case <-late:
			return errors.New("what runs in the background has not ended: the process ends all the same")
		}
	}
}

// obey does what signals ask for that do not end the process. It is not waited for: a file that RELOAD reads may not answer.
func (a *app) obey(sig *signals, log *slog.Logger) {
	for {
		select {
		case <-sig.reload:
			if err := a.reload(); err != nil {
				log.Error("the configuration was not read again: the old one stays in force", "error", err)
			}
		case s := <-sig.none:
			log.Warn("this signal means nothing here: PAUSE and RESUME are statements of the admin console", "signal", s)
		}
	}
}

// toldToEnd is why a process did not become ready that was told to end.
type toldToEnd struct{ by os.Signal }

func (e *toldToEnd) Error() string { return e.by.String() }

// startUnless starts the proxy, unless a signal to end comes first.
func startUnless(ctx context.Context, end <-chan os.Signal, start func(context.Context) (*app, error)) (*app, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	type outcome struct {
		a   *app
		err error
	}
	started := make(chan outcome, 1)
	go func() {
		a, err := start(ctx)
		started <- outcome{a, err}
	}()
	select {
	case o := <-started:
		return o.a, o.err
	case s := <-end:
		told := &toldToEnd{s}
		cancel(told)
		select {
		case o := <-started:
			if o.err == nil {
				o.a.stop(0)
			}
		case <-time.After(endWithin):
			return nil, errors.New("the start has not ended: the process ends all the same")
		}
		return nil, told
	}
}
