package pool

import (
	"errors"

	"github.com/pgmosaic/pgmosaic/proxy/wire"
)

// Answer is what a server says to one request, up to ReadyForQuery, for everybody who reads it rather than passes it on
// unread. Whatever the request was, parameters are noted, an error is kept to the end, the first one counts, and notices go to
// whom they are for.
type Answer struct {
	*Server
	Hear func(m wire.Message) error // notices, and parameters as they change; nil: nobody is told. Its error ends the reading

	Open   bool         // the pipeline stays open: an error ends the answer, not ReadyForQuery, which does not come
	Failed *ServerError // the first error so far
	Tag    string       // the last command's
	Ended  bool         // all of it has been read
}

// errReady ends an answer. It is not io.EOF, with which a connection ends.
var errReady = errors.New("the answer has been read")

// Next returns the answer's next message that is none of those: rows, their description, tags, COPY. An error is its
// end if Ended is set. Else it means that the server is lost, or that Hear has failed; then the server is dirty.
func (a *Answer) Next() (wire.Message, error) {
	for {
		m, err := a.Server.Next()
		if err != nil {
			a.Dirty = true
			return m, err
		}
		switch m.Type {
		case 'C':
			a.Tag = string(m.Body()[:len(m.Body())-1])
			return m, nil
		case 'E':
			if a.Failed == nil {
				a.Failed = &ServerError{wire.ParseError(m.Body())}
			}
			if a.Open {
				a.Ended = true
				return m, errReady
			}
		case 'S':
			a.NoteParam(m.Body())
			err = a.hear(m)
		case 'N':
			err = a.hear(m)
		case 'Z':
			a.TxStatus = m.Body()[0]
			a.Ended = true
			return m, errReady
		default:
			return m, nil
		}
		if err != nil {
			a.Dirty = true
			return m, err
		}
	}
}

// Peek is the type of the message that Next is going to return, or that ends the answer, and its size. What the server says before it has been heard: whoever
// looks at the server itself takes the message behind a notice for the notice.
func (a *Answer) Peek() (typ byte, n int, err error) {
	for {
		typ, n, err = a.Server.Peek()
		if err != nil || typ != 'N' && typ != 'S' {
			a.Dirty = a.Dirty || err != nil
			return typ, n, err
		}
		var m wire.Message
		if m, err = a.Server.Next(); err == nil {
			if typ == 'S' {
				a.NoteParam(m.Body())
			}
			err = a.hear(m)
		}
		if err != nil {
			a.Dirty = true
			return typ, n, err
		}
	}
}

func (a *Answer) hear(m wire.Message) error {
	if a.Hear == nil {
		return nil
	}
	return a.Hear(m)
}

// Read reads the answer to its end. each sees every message that Next returns; after its first error it sees no more, but the
// answer is read all the same. What is returned is the failure of reading, else the server's error, else each's.
func (a *Answer) Read(each func(m wire.Message) error) error {
	var failed error
	for {
		m, err := a.Next()
		switch {
		case a.Ended:
			if a.Failed != nil {
				return a.Failed
			}
			return failed
		case err != nil:
			return err
		case failed == nil && each != nil:
			failed = each(m)
		}
	}
}
