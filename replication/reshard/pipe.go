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
func pipe(produce, consume func(*pipeEnd) error) error {
	r, w := io.Pipe()
	end := &pipeEnd{r, w}
	done := make(chan error, 1)
	go func() {
		err := panics.Catch(panics.Session, func() error { return produce(end) }, nil)
		_ = w.CloseWithError(err) // nil means EOF
		done <- err
	}()
	var err, perr error
	func() {
		defer func() { // also if consume panics: the producer would wait for ever
			_ = r.CloseWithError(errPipe)
			perr = <-done
		}()
		err = consume(end)
	}()
	if perr != nil && !errors.Is(perr, errPipe) {
		return perr
	}
	return err
}
