// Package pipeline holds what the extended protocol is made of on the proxy's side: the answers that a pipeline still expects of its server,
// and the states of its portals. It knows no server and no client.
package pipeline

// Answer is what a server is expected to say to one message that it was sent.
type Answer uint8

// The answers.
const (
	Completed Answer = iota // of Parse, Bind or Close
	Hidden                  // the same, kept from the client, who has not asked
	Described               // of Describe of a portal
	Executed                // of Execute
	Own                     // none: bytes of the proxy's own stand in its place
	Compared                // of Describe of a statement, kept from the client: it has seen that before, or is about to
	answersEnd
)

func (a Answer) String() string {
	return [...]string{"completed", "hidden", "described", "executed", "own", "compared"}[a]
}

// Messages are what an answer is made of, by the types of the server's messages: those that may come before the last, and those that are the
// last. An error ends each of them, and notices, parameters and notifications come at any time.
type Messages struct{ Before, Last string }

// Answers lists the messages of each answer. Source: "Extended Query" and "COPY Operations" of PostgreSQL's description of its protocol. The
// RowDescription or NoData behind a statement's parameters is read with these.
var Answers = [answersEnd]Messages{
	Completed: {Last: "123"},
	Hidden:    {Last: "123"},
	Described: {Last: "Tn"},
	Executed:  {Before: "DGHdc", Last: "CIs"},
	Own:       {},
	Compared:  {Last: "t"},
}

// anytime are the messages that no answer is about.
const anytime = "NSA"

// Takes says whether a message of the server's belongs to an answer, and whether it is the last of it. What does not belong is a fault of the
// server's, or the two do not know any more where they are: the connection is good for nothing.
func (a Answer) Takes(typ byte) (belongs, last bool) {
	m := taken[a][typ]
	return m != 0, m == ends
}

const amid, ends = 1, 2

// taken is Answers by the types of messages: each of a server's is looked up.
var taken = func() (out [answersEnd][256]uint8) {
	for a, m := range Answers {
		for _, typ := range []byte(m.Before + anytime) {
			out[a][typ] = amid
		}
		for _, typ := range []byte(m.Last + "E") {
			out[a][typ] = ends
		}
	}
	return out
}()
