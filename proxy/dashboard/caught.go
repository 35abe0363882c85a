package dashboard

import (
	"net/http"

	"github.com/pgmosaic/pgmosaic/proxy/panics"
)

// caught answers a request whose handler panics with 500, or cuts it off where the answer has begun.
func caught(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a := &answer{ResponseWriter: w}
		err := panics.Catch(panics.Dashboard, func() error {
			panics.Point("dashboard")
			h.ServeHTTP(a, r)
			return nil
		}, func() []any { return []any{"method", r.Method, "path", r.URL.Path} })
		switch {
		case err != nil && a.begun:
			panic(http.ErrAbortHandler)
		case err != nil:
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})
}

// answer knows whether it has begun.
type answer struct {
	http.ResponseWriter
	begun bool
}

// WriteHeader is http.ResponseWriter's.
func (a *answer) WriteHeader(status int) {
	a.begun = true
	a.ResponseWriter.WriteHeader(status)
}

// Write is http.ResponseWriter's.
func (a *answer) Write(b []byte) (int, error) {
	a.begun = true
	return a.ResponseWriter.Write(b)
}

// Unwrap is http.ResponseController's.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }
