package job

import (
	"strconv"
	"sync"
	"sync/atomic"

	"pyro.dev/agent/account"
	"pyro.dev/agent/cgroup"
	"pyro.dev/agent/reap"
)

const (
	maxRunning = 64
	maxEnded   = 256
	// endedBudget bounds the output that ended jobs keep; the oldest job's goes first, its report stays.
	endedBudget = 8 << 20
	// sweepStep bounds how many left cgroups one job's end looks at.
	sweepStep = 8
)

// Table knows all jobs.
type Table struct {
	reaper   *reap.Reaper
	group    *cgroup.Group // parent of the jobs' groups; nil without cgroups
	accounts account.Files
	// parentCounts is set where refused forks are counted at the group with the limit (kernel 6.11 and later).
	parentCounts bool
	live         atomic.Int64
	forsaken     atomic.Int64

	mu       sync.Mutex
	jobs     map[string]*Job
	running  int
	order    []*Job          // ended jobs, oldest first
	held     int             // bytes of output they keep
	leftover []*cgroup.Group // groups of ended jobs in which something still runs
	spare    *cgroup.Group   // for the next job, made when there was time; nil when there is none
	made     uint64          // groups that were made
}

// NewTable makes a table whose jobs are children of this process.
func NewTable(reaper *reap.Reaper, group *cgroup.Group, accounts account.Files) *Table {
	t := &Table{reaper: reaper, group: group, accounts: accounts, jobs: map[string]*Job{}}
	t.parentCounts = group != nil && group.Has("pids.events.local")
	return t
}

// takeGroup gives a new job its group. To make one is a tenth of the work of starting a program, and a template's clones
// find theirs made.
func (t *Table) takeGroup() (*cgroup.Group, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if spare := t.spare; spare != nil {
		t.spare = nil
		return spare, nil
	}
	return t.makeGroup()
}

// makeGroup makes a group with a name of its own. The lock is held.
func (t *Table) makeGroup() (*cgroup.Group, error) {
	t.made++
	return t.group.Make(strconv.FormatUint(t.made, 10))
}

// Start starts a job, unless its id is known; started says which. With attach, the client has all output from the
// beginning; otherwise it is nil.
func (t *Table) Start(spec Spec, attach bool) (j *Job, c *Client, started bool, err error) {
	t.mu.Lock()
	j = t.jobs[spec.ID]
	if j == nil && t.running >= maxRunning {
		t.mu.Unlock()
		return nil, nil, false, ErrTooMany
	}
	started = j == nil
	if started {
		j = newJob(t, spec.ID, spec.Buffer)
		j.stdin.wanted = spec.Stdin || spec.Terminal != nil
		t.jobs[spec.ID] = j
		t.running++
	}
	t.mu.Unlock()

	if attach {
		c = j.Attach([2]uint64{})
	}
	if started {
		j.startErr = j.launch(spec)
		if j.startErr != nil {
			t.mu.Lock()
			delete(t.jobs, spec.ID)
			t.running--
			t.mu.Unlock()
		}
		close(j.ready)
	}
	<-j.ready
	if j.startErr != nil {
		return nil, nil, false, j.startErr
	}
	return j, c, started, nil
}

// Find returns a known job.
func (t *Table) Find(id string) (*Job, error) {
	t.mu.Lock()
	j := t.jobs[id]
	t.mu.Unlock()
	if j == nil {
		return nil, ErrNoSuchJob
	}
	<-j.ready
	if j.startErr != nil {
		return nil, ErrNoSuchJob
	}
	return j, nil
}

// All returns all known jobs in no order.
func (t *Table) All() []*Job {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]*Job, 0, len(t.jobs))
	for _, j := range t.jobs {
		select {
		case <-j.ready:
			all = append(all, j)
		default: // still being started
		}
	}
	return all
}

// Forget drops an ended job.
func (t *Table) Forget(id string) error {
	j, err := t.Find(id)
	if err != nil {
		return err
	}
	if j.Exit() == nil {
		return ErrRunning
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, other := range t.order {
		if other == j {
			t.order = append(t.order[:i], t.order[i+1:]...)
			t.held -= j.kept
			delete(t.jobs, id)
			break
		}
	}
	return nil
}

// file puts a job among the ended ones and keeps those within bounds.
func (t *Table) file(j *Job) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.running--
	t.order = append(t.order, j)
	t.held += j.kept
	if len(t.order) > maxEnded {
		t.held -= t.order[0].kept
		delete(t.jobs, t.order[0].ID)
		t.order = t.order[1:]
	}
	for i := 0; i < len(t.order) && t.held > endedBudget; i++ {
		t.held -= t.order[i].dropOutput()
	}
}

// dropOutput drops what an ended job holds and says how much that was. A client that still reads is not robbed. The
// table's lock is held.
func (j *Job) dropOutput() (freed int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.clients) > 0 {
		return 0
	}
	for i := range j.streams {
		j.streams[i].drop()
	}
	freed, j.kept = j.kept, 0
	return freed
}

// clean removes the groups of ended jobs, newest first, a few at a time; those still in use wait for a later turn. Then
// it makes the next job's.
func (t *Table) clean(j *Job) {
	if j.group == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.leftover = append(t.leftover, j.group)
	for range min(sweepStep, len(t.leftover)) {
		last := len(t.leftover) - 1
		group := t.leftover[last]
		if group.Remove() == nil || !group.Has("cgroup.procs") {
			t.leftover = t.leftover[:last]
			continue
		}
		copy(t.leftover[1:], t.leftover)
		t.leftover[0] = group
	}
	if t.spare == nil {
		if group, err := t.makeGroup(); err == nil {
			t.spare = group
		}
	}
}

// limitHits counts the forks that were refused for all jobs together, where the kernel counts them there.
func (t *Table) limitHits() int64 {
	if !t.parentCounts {
		return 0
	}
	return t.group.Event("pids.events", "max")
}

// KillAll kills every process of every job.
func (t *Table) KillAll() {
	if t.group != nil {
		t.group.Kill()
		return
	}
	for _, j := range t.All() {
		j.Signal(9, true)
	}
}

// Usage of all jobs together.
type Usage struct{ Processes, OOMKills int64 }

// Usage reads the counters of the jobs' group.
func (t *Table) Usage() (u Usage) {
	if t.group != nil {
		u.Processes = t.group.Value("pids.current")
		u.OOMKills = t.group.Event("memory.events", "oom_kill")
	}
	return u
}
