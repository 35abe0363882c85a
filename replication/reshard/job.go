package reshard

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
func (mv *Mover) begin(database, statement string) *job {
	mv.jobs.Lock()
	defer mv.jobs.Unlock()
	mv.jobs.last++
	j := &job{id: mv.jobs.last, database: database, statement: statement, started: time.Now(), state: "starting"}
	mv.jobs.list = append(mv.jobs.list, j)
	if n := len(mv.jobs.list) - keptJobs; n > 0 {
		mv.jobs.list = append([]*job(nil), mv.jobs.list[n:]...)
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

// Job is what is told of a job.
type Job struct {
	ID                         int
	Database, Statement, State string
	Rows                       int64
	Expected                   int64 // rows, by estimate; negative or 0: not known
	Started, Ended             time.Time
}

// Jobs are those that run and the last that have ended, the oldest first.
func (mv *Mover) Jobs() (out []Job) {
	mv.jobs.Lock()
	list := append([]*job(nil), mv.jobs.list...)
	mv.jobs.Unlock()
	for _, j := range list {
		j.note(func() {
			out = append(out, Job{j.id, j.database, j.statement, j.state, j.rows, j.expected, j.started, j.ended})
		})
	}
	return out
}
