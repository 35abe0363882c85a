package pgsql

// Error is an error with PostgreSQL's fields. Whoever sends errors to clients reads them by these methods, so that other types can have some
// of them as well.
type Error struct {
	Code    string // SQLSTATE
	Message string
	Detail  string
	Hint    string
	Routine string // PostgreSQL's own function that reports the error, for the few that drivers know by it
	Pos     int    // 1-based character position in the statement; 0: none
}

func (e *Error) Error() string { return e.Message }

// SQLState is the error's SQLSTATE.
func (e *Error) SQLState() string { return e.Code }

// ErrorHint is the error's hint.
func (e *Error) ErrorHint() string { return e.Hint }

// ErrorDetail is the error's detail.
func (e *Error) ErrorDetail() string { return e.Detail }

// ErrorRoutine is PostgreSQL's own function that reports the error, if that matters.
func (e *Error) ErrorRoutine() string { return e.Routine }

// ErrorPosition is where in the statement the error is, 0 for nowhere.
func (e *Error) ErrorPosition() int { return e.Pos }
