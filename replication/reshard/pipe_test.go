package reshard

import "testing"

// A consumer that panics leaves no producer behind.
func TestAPipeEndsWithAPanic(t *testing.T) {
	ended := make(chan error, 1)
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic is gone")
			}
		}()
		_ = pipe(func(w *pipeEnd) error {
			_, err := w.Write(make([]byte, 1<<20))
			ended <- err
			return err
		}, func(r *pipeEnd) error {
			_, _ = r.Read(make([]byte, 1))
			panic("amid the rows")
		})
	}()
	if len(ended) == 0 {
		t.Error("the producer waits still")
	}
}
