package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/config"
	"github.com/pgmosaic/pgmosaic/proxy/instance"
	"github.com/pgmosaic/pgmosaic/proxy/panics"
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
func serve(ctx context.Context, cfg config.Config, sig *signals) error {
	if cfg.Direct.Folder != "" {
		defer os.RemoveAll(cfg.Direct.Folder) // a folder of ours in /tmp
	}
	signal.Notify(sig.end, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT)
	instance.Tune()
	sink := newLogSink(os.Stderr, func(lost int, why error) []byte { return missingLines(cfg, lost, why) })
	defer sink.close()
	log, level := instance.NewLog(&cfg, sink)
	in, err := startUnless(ctx, sig.end, func(ctx context.Context) (*instance.Instance, error) {
		return start(ctx, cfg, instance.Options{Log: log, Level: level, Lost: sink.Lost, Version: version})
	})
	var signalled *toldToEnd
	if errors.As(err, &signalled) {
		log.Info("stopped before it was ready", "signal", signalled.by)
		return nil
	}
	if err != nil {
		return err
	}
	log.Info("ready", "listen", in.Addr(), "http", cfg.HTTP)
	panics.Go(panics.Background, func() { obey(in, sig, log) })
	drain := max(cfg.Drain.Value(), time.Millisecond)
	select {
	case s := <-sig.end:
		if s == syscall.SIGQUIT {
			drain = 0
		}
	case <-in.Ended():
	}
	log.Info("draining", "timeout", drain)
	done := make(chan error, 1)
	go func() { done <- panics.Catch(panics.Background, func() error { in.Stop(drain); return nil }, nil) }()
	var late <-chan time.Time // never, while clients are waited for
	if !in.WaitsForClients() {
		late = time.After(drain + instance.AnswerWithin + endWithin)
	}
	for {
		select {
		case err := <-done:
			if err != nil {
				return err
			}
			log.Info("stopped")
			return nil
		case <-sig.end:
			log.Info("not waiting for transactions any more")
			panics.Go(panics.Background, in.StopWaiting)
			late = time.After(instance.AnswerWithin + endWithin)
		case <-late:
			return errors.New("what runs in the background has not ended: the process ends all the same")
		}
	}
}

// obey does what signals ask for that do not end the process. It is not waited for: a file that RELOAD reads may not answer.
func obey(in *instance.Instance, sig *signals, log *slog.Logger) {
	for {
		select {
		case <-sig.reload:
			if err := in.Reload(); err != nil {
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
func startUnless(ctx context.Context, end <-chan os.Signal, start func(context.Context) (*instance.Instance, error)) (*instance.Instance, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	type outcome struct {
		in  *instance.Instance
		err error
	}
	started := make(chan outcome, 1)
	go func() {
		var o outcome
		o.err = panics.Catch(panics.Background, func() (err error) { o.in, err = start(ctx); return err }, nil)
		started <- o
	}()
	select {
	case o := <-started:
		return o.in, o.err
	case s := <-end:
		signalled := &toldToEnd{s}
		cancel(signalled)
		select {
		case o := <-started:
			if o.err == nil {
				o.in.Stop(0)
			}
		case <-time.After(endWithin):
			return nil, errors.New("the start has not ended: the process ends all the same")
		}
		return nil, signalled
	}
}

// start makes an instance and has it serve.
func start(ctx context.Context, cfg config.Config, opts instance.Options) (*instance.Instance, error) {
	in, err := instance.New(ctx, cfg, opts)
	if err != nil {
		return nil, err
	}
	return in, in.Start(ctx)
}
