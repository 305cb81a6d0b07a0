package serve

import (
	"bytes"
	"errors"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"pyro.dev/agent/files"
	"pyro.dev/agent/identity"
	"pyro.dev/agent/job"
	"pyro.dev/agent/machine"
	"pyro.dev/agent/wire"
)

const (
	maxSignal = 64
	jobIDSize = 16
	// maxMilliseconds keeps a duration far from overflow: 10 years.
	maxMilliseconds = 10 * 365 * 86400 * 1000
)

// perform carries out a request. A client means that the answer is followed by a stream.
func (s *Server) perform(r *request) (answer any, client *job.Client, err error) {
	if s.Jobs == nil {
		return nil, nil, &failure{"unknown_op", "only files are served here"}
	}
	switch r.Op {
	case "exec":
		return s.exec(r)
	case "attach":
		return s.attach(r)
	case "signal":
		answer, err = s.signal(r)
	case "info":
		answer = s.info()
	case "configure":
		answer, err = s.configure(r)
	case "jobs":
		answer = s.list()
	case "forget":
		answer, err = empty{}, s.Jobs.Forget(r.Job)
	case "usage":
		answer = s.usage()
	case "poweroff":
		answer = empty{}
	default:
		err = &failure{"unknown_op", "no operation " + strconv.Quote(r.Op)}
	}
	return answer, nil, err
}

func asFailure(err error) *failure {
	var f *failure
	if errors.As(err, &f) {
		return f
	}
	var known *files.Failure
	if errors.As(err, &known) {
		return &failure{known.Code, known.Message}
	}
	codes := map[error]string{
		job.ErrNoSuchUser: "no_such_user", job.ErrBadCwd: "bad_cwd", job.ErrTooMany: "too_many_jobs",
		job.ErrNoSuchJob: "no_such_job", job.ErrRunning: "busy",
	}
	if code := codes[err]; code != "" {
		return &failure{code, err.Error()}
	}
	return &failure{"internal", err.Error()}
}

func (s *Server) exec(r *request) (any, *job.Client, error) {
	if !s.configured.Load() {
		return nil, nil, &failure{"not_configured", "configure comes before the first exec"}
	}
	spec, err := r.spec()
	if err != nil {
		return nil, nil, err
	}
	j, client, started, err := s.Jobs.Start(spec, !r.Detach)
	if err != nil {
		return nil, nil, err
	}
	return answerStart(j, client, started), client, nil
}

func answerStart(j *job.Job, client *job.Client, started bool) startAnswer {
	answer := startAnswer{Job: j.ID, Pid: j.Pid(), Started: started}
	if client != nil {
		answer.StdinCredit, answer.StdinOffset = client.Input()
	}
	return answer
}

// spec checks an exec request.
func (r *request) spec() (job.Spec, error) {
	spec := job.Spec{
		ID: r.Job, Cwd: string(r.Cwd), User: r.User, Stdin: r.Stdin, Buffer: int(min(max(r.BufferBytes, 0), job.MaxBuffer)),
		Timeout: time.Duration(r.TimeoutMs) * time.Millisecond, Grace: time.Duration(r.GraceMs) * time.Millisecond,
	}
	switch {
	case !validID(r.Job):
		return spec, badRequest("job is not 16 hexadecimal digits")
	case len(r.Argv) == 0 || len(r.Argv[0]) == 0:
		return spec, badRequest("argv names no program")
	case r.TimeoutMs < 0 || r.GraceMs < 0 || r.TimeoutMs > maxMilliseconds || r.GraceMs > maxMilliseconds:
		return spec, badRequest("timeout_ms or grace_ms is out of range")
	case bytes.IndexByte(r.Cwd, 0) >= 0:
		return spec, badRequest("cwd holds a NUL")
	}
	for _, argument := range r.Argv {
		if bytes.IndexByte(argument, 0) >= 0 {
			return spec, badRequest("an argument holds a NUL")
		}
		spec.Argv = append(spec.Argv, string(argument))
	}
	for _, entry := range r.Env {
		if bytes.IndexByte(entry, 0) >= 0 || bytes.IndexByte(entry, '=') < 1 {
			return spec, badRequest("an env entry is not NAME=VALUE")
		}
		spec.Env = append(spec.Env, string(entry))
	}
	if r.TTY != nil {
		spec.Terminal = &job.Terminal{Rows: r.TTY.Rows, Columns: r.TTY.Columns, Term: r.TTY.Term}
		if strings.IndexByte(r.TTY.Term, 0) >= 0 {
			return spec, badRequest("term holds a NUL")
		}
	}
	return spec, nil
}

func validID(id string) bool {
	for _, c := range []byte(id) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return len(id) == jobIDSize
}

func (s *Server) attach(r *request) (any, *job.Client, error) {
	j, err := s.Jobs.Find(r.Job)
	if err != nil {
		return nil, nil, err
	}
	client := j.Attach([2]uint64{r.StdoutOffset, r.StderrOffset})
	return answerStart(j, client, false), client, nil
}

func (s *Server) signal(r *request) (any, error) {
	if r.Signal < 1 || r.Signal > maxSignal || r.Scope != "" && r.Scope != "group" && r.Scope != "all" {
		return nil, badRequest("signal or scope is out of range")
	}
	j, err := s.Jobs.Find(r.Job)
	if err != nil {
		return nil, err
	}
	return signalAnswer{j.Signal(syscall.Signal(r.Signal), r.Scope == "all")}, nil
}

func (s *Server) info() infoAnswer {
	return infoAnswer{
		AgentVersion: s.Version,
		Generation:   wire.Generation,
		Kernel:       readLine("/proc/sys/kernel/osrelease"),
		BootID:       readLine("/proc/sys/kernel/random/boot_id"),
		UptimeMs:     machine.Uptime().Milliseconds(),
		BootMs:       s.BootMs,
		Configured:   s.configured.Load(),
	}
}

func (s *Server) configure(r *request) (any, error) {
	if err := r.Config.Check(); err != nil {
		return nil, badRequest(err.Error())
	}
	applied, err := identity.Apply(r.Config, identity.System)
	if err != nil {
		return nil, err
	}
	s.configured.Store(true)
	return configureAnswer{applied}, nil
}

func (s *Server) list() jobsAnswer {
	answer := jobsAnswer{[]jobEntry{}}
	for _, j := range s.Jobs.All() {
		exit := j.Exit()
		answer.Jobs = append(answer.Jobs, jobEntry{j.ID, j.Pid(), exit == nil, exit})
	}
	return answer
}

func (s *Server) usage() (u usageAnswer) {
	memory := machine.Memory()
	u.Memory = memoryUsage{memory.Total, memory.Available, memory.Free}
	var fs syscall.Statfs_t
	if syscall.Statfs("/", &fs) == nil {
		u.Disk = diskUsage{fs.Blocks * uint64(fs.Bsize), fs.Bavail * uint64(fs.Bsize)}
	}
	jobs := s.Jobs.Usage()
	u.Processes, u.OOMKills = jobs.Processes, jobs.OOMKills
	return u
}

func readLine(path string) string {
	data, _ := os.ReadFile(path)
	return strings.TrimSpace(string(data))
}
