// Package job runs programs: each at most once, in its own process group and cgroup, with output kept for whoever
// attaches, and with one exit report that says what happened.
package job

import (
	"errors"
	"os"
	"sync"
	"syscall"
	"time"

	"pyro.dev/agent/cgroup"
	"pyro.dev/agent/reap"
)

// Errors that mean nothing was started, and why.
var (
	ErrNoSuchUser = errors.New("no such user")
	ErrBadCwd     = errors.New("the working directory is not a directory")
	ErrTooMany    = errors.New("too many jobs are running")
	ErrNoSuchJob  = errors.New("no such job")
	ErrRunning    = errors.New("the job is running")
	// ErrCredit is a client that sent more input than it was allowed to.
	ErrCredit = errors.New("input beyond the credit")
)

// Spec is what to run. Argv is not empty, and no string holds a NUL.
type Spec struct {
	ID             string
	Argv, Env      []string
	Cwd, User      string
	Terminal       *Terminal
	Stdin          bool
	Timeout, Grace time.Duration
	Buffer         int
}

// Terminal asks for a pseudo terminal.
type Terminal struct {
	Rows, Columns uint16
	Term          string
}

// Exit is the report of an ended job.
type Exit struct {
	Code          int      `json:"exit_code"`
	Signal        int      `json:"signal"`
	TimedOut      bool     `json:"timed_out"`
	Causes        []string `json:"causes"`
	Error         string   `json:"error"`
	DurationMs    int64    `json:"duration_ms"`
	StdoutBytes   uint64   `json:"stdout_bytes"`
	StderrBytes   uint64   `json:"stderr_bytes"`
	StdoutDropped uint64   `json:"stdout_dropped"`
	StderrDropped uint64   `json:"stderr_dropped"`
}

// Stdout and Stderr index the streams of a job.
const (
	Stdout = 0
	Stderr = 1
)

// stream is one direction of output.
type stream struct {
	ring
	file    *os.File // our end; nil when the job has no such stream
	seen    uint64   // the highest offset that was given to a client
	dropped uint64   // bytes that were overwritten before any client had them
}

// Job is a program that was started, or could not be.
//
// Locks: the reaper's lock is taken before mu, never after it.
type Job struct {
	ID    string
	table *Table
	began time.Time
	ready chan struct{} // closed when the start has succeeded or failed
	group *cgroup.Group // nil without cgroups
	proc  *reap.Process // nil when nothing could be started

	mu       sync.Mutex
	changed  *sync.Cond // wakes clients
	room     *sync.Cond // wakes pumps that wait for a full buffer
	input    *sync.Cond // wakes the writer of stdin
	streams  [2]stream
	stdin    stdin
	clients  []*Client
	pending  int // what the end still waits for: the leader and each stream
	status   syscall.WaitStatus
	gone     bool // the leader has exited
	timedOut bool
	failure  startFailure
	exit     *Exit
	startErr error
	timer    *time.Timer
	kept     int // bytes of output held after the end; guarded by the table's lock once it is filed there
	// limitHits is the count of the parent's refused forks when the job began, where only the parent counts them.
	limitHits int64
}

func newJob(t *Table, id string, buffer int) *Job {
	if buffer <= 0 || buffer > MaxBuffer {
		buffer = MaxBuffer
	}
	j := &Job{ID: id, table: t, began: time.Now(), ready: make(chan struct{}), pending: 1}
	j.changed, j.room, j.input = sync.NewCond(&j.mu), sync.NewCond(&j.mu), sync.NewCond(&j.mu)
	for i := range j.streams {
		j.streams[i].ring = ring{limit: max(buffer, firstGrow), live: &t.live}
	}
	return j
}

// Pid is the leader's process id, 0 when nothing could be started.
func (j *Job) Pid() int {
	if j.proc == nil {
		return 0
	}
	return j.proc.Pid
}

// Exit returns the report, nil while the job runs.
func (j *Job) Exit() *Exit {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.exit
}

// Signal signals the leader's process group, or all processes of the job, and says whether anyone was there.
func (j *Job) Signal(sig syscall.Signal, all bool) bool {
	reached := j.proc != nil && j.proc.SignalGroup(sig)
	if !all || j.group == nil {
		return reached
	}
	if sig == syscall.SIGKILL {
		alive := j.group.Signal(0)
		return j.group.Kill() == nil && alive || reached
	}
	return j.group.Signal(sig) || reached
}

// expire begins the end of a job that ran out of time.
func (j *Job) expire(grace time.Duration) {
	j.mu.Lock()
	if j.gone {
		j.mu.Unlock()
		return
	}
	j.timedOut = true
	j.mu.Unlock()
	j.Signal(syscall.SIGTERM, true)
	time.AfterFunc(grace, func() { j.Signal(syscall.SIGKILL, true) })
}

// Resize tells the job its terminal's new size.
func (j *Job) Resize(rows, columns uint16) {
	j.mu.Lock()
	master := j.stdin.terminal
	j.mu.Unlock()
	if master != nil {
		setSize(master, rows, columns)
	}
}
