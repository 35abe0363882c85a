package admin

import (
	"sync"
	"time"

	"github.com/pgmosaic/pgmosaic/proxy/panics"
)

// job is a statement that takes its time, for SHOW JOBS.
type job struct {
	id        int
	database  string
	statement string
	started   time.Time

	mu       sync.Mutex
	state    string // what it does, or how it ended
	rows     int64
	expected int64 // rows, as the planner's statistics have it; negative or 0: not known
	ended    time.Time
}

// keptJobs is how many ended jobs are remembered.
const keptJobs = 50

// begin notes a job.
func (a *Admin) begin(database, statement string) *job {
	a.jobs.Lock()
	defer a.jobs.Unlock()
	a.jobs.last++
	j := &job{id: a.jobs.last, database: database, statement: statement, started: time.Now(), state: "starting"}
	a.jobs.list = append(a.jobs.list, j)
	if n := len(a.jobs.list) - keptJobs; n > 0 {
		a.jobs.list = append([]*job(nil), a.jobs.list[n:]...)
	}
	return j
}

// jobs are those that run and the last that have ended.
type jobs struct {
	sync.Mutex
	last int
	list []*job
}

// note changes what is shown of the job.
func (j *job) note(change func()) {
	j.mu.Lock()
	defer j.mu.Unlock()
	change()
}

func (j *job) phase(s string)    { j.note(func() { j.state = s }) }
func (j *job) add(rows int64)    { j.note(func() { j.rows += rows }) }
func (j *job) expect(rows int64) { j.note(func() { j.expected += rows }) }

// close is deferred: it ends the job with what its function returns, or with its panic.
func (j *job) close(err *error) {
	if v := recover(); v != nil {
		j.end(&panics.Error{})
		panic(v)
	}
	j.end(*err)
}

// end notes how it ended.
func (j *job) end(err error) {
	j.note(func() {
		j.ended = time.Now()
		if j.state = "done"; err != nil {
			j.state = "failed: " + err.Error()
		}
	})
}

func showJobs(a *Admin) [][]any {
	a.jobs.Lock()
	list := append([]*job(nil), a.jobs.list...)
	a.jobs.Unlock()
	var out [][]any
	for _, j := range list {
		j.mu.Lock()
		end, ended := time.Now(), any(nil)
		if !j.ended.IsZero() {
			end, ended = j.ended, j.ended.Format(time.DateTime)
		}
		var expected any
		if j.expected > 0 {
			expected = j.expected
		}
		out = append(out, []any{j.id, j.database, j.statement, j.state, j.rows, expected, j.started.Format(time.DateTime), ended, end.Sub(j.started).Milliseconds()})
		j.mu.Unlock()
	}
	return out
}
