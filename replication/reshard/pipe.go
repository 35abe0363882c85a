package reshard

import (
	"errors"
	"io"

	"github.com/pgmosaic/pgmosaic/proxy/panics"
)

// pipeEnd is one end of an in-process pipe between two servers.
type pipeEnd struct {
	r *io.PipeReader
	w *io.PipeWriter
}

func (p *pipeEnd) Read(b []byte) (int, error)  { return p.r.Read(b) }
func (p *pipeEnd) Write(b []byte) (int, error) { return p.w.Write(b) }

// pipe runs a producer beside a consumer and waits for both.
func pipe(produce func(*pipeEnd) error, consume func(*pipeEnd) (int64, error)) (int64, error) {
	r, w := io.Pipe()
	end := &pipeEnd{r, w}
	done := make(chan error, 1)
	go func() {
		err := panics.Catch(panics.Session, func() error { return produce(end) }, nil)
		_ = w.CloseWithError(err) // nil means EOF
		done <- err
	}()
	var n int64
	var err, perr error
	func() {
		defer func() { // also if consume panics: the producer would wait for ever
			_ = r.CloseWithError(errPipe)
			perr = <-done
		}()
		n, err = consume(end)
	}()
	if err == nil || errors.Is(perr, errPipe) {
		if errors.Is(perr, errPipe) {
			perr = nil
		}
	}
	if perr != nil {
		return n, perr
	}
	return n, err
}
