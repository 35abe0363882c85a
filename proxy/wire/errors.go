package wire

import (
	"errors"
	"os"

	"github.com/pgmosaic/pgmosaic/proxy/pgsql"
)

// IsTimeout says whether a read or write ended because its deadline passed.
func IsTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }

// ErrorFor is the ErrorResponse for an error. What an error knows of itself it tells by small methods:
// ErrorResponse (a server's own words), SQLState, ErrorHint, ErrorDetail, ErrorPosition. An error without
// SQLState is our own fault: XX000.
func ErrorFor(severity string, err error) *ErrorResponse {
	var own interface{ ErrorResponse() *ErrorResponse }
	if errors.As(err, &own) {
		r := *own.ErrorResponse()
		if r.SeverityUnlocalized == "FATAL" || r.SeverityUnlocalized == "PANIC" { // of the server's session, not of the client's
			r.Severity, r.SeverityUnlocalized = severity, severity
		}
		return &r
	}
	r := &ErrorResponse{Severity: severity, SeverityUnlocalized: severity, Code: pgsql.InternalError, Message: err.Error()}
	var state interface{ SQLState() string }
	if errors.As(err, &state) {
		r.Code = state.SQLState()
	}
	var hint interface{ ErrorHint() string }
	if errors.As(err, &hint) {
		r.Hint = hint.ErrorHint()
	}
	var detail interface{ ErrorDetail() string }
	if errors.As(err, &detail) {
		r.Detail = detail.ErrorDetail()
	}
	var routine interface{ ErrorRoutine() string }
	if errors.As(err, &routine) {
		r.Routine = routine.ErrorRoutine()
	}
	var pos interface{ ErrorPosition() int }
	if errors.As(err, &pos) {
		r.Position = int32(pos.ErrorPosition())
	}
	return r
}
