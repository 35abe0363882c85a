package pgsql

import "errors"

// Failure is an error of ours that has a cause of which the client is told the SQLSTATE alone: its words may hold a secret, a connection
// string for one.
type Failure struct {
	Code    string // SQLSTATE
	Message string
	Cause   error
}

func (f *Failure) Error() string { return f.Message }
func (f *Failure) Unwrap() error { return f.Cause }

// SQLState is the error's SQLSTATE.
func (f *Failure) SQLState() string { return f.Code }

// ErrorDetail is the cause, as far as it holds no secret.
func (f *Failure) ErrorDetail() string {
	var s interface{ SQLState() string }
	if errors.As(f.Cause, &s) {
		return "SQLSTATE " + s.SQLState()
	}
	return ""
}
