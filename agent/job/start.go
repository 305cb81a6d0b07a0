package job

import (
	"os"
	"syscall"
	"time"

	"pyro.dev/agent/account"
	"pyro.dev/agent/trust"
)

// launch starts the program. An error means that the job does not exist; a program that cannot be executed is a job
// that has ended with 126 or 127.
func (j *Job) launch(spec Spec) error {
	who, err := j.table.accounts.Lookup(spec.User)
	if err != nil {
		return ErrNoSuchUser
	}
	cwd := spec.Cwd
	if cwd == "" {
		if cwd = who.Home; !isDir(cwd) {
			cwd = "/"
		}
	}
	if !isDir(cwd) {
		return ErrBadCwd
	}
	env := environment(spec, who, trust.Variables("/"))
	program, failure := find(spec.Argv[0], env, cwd)
	if failure.code != 0 {
		j.fail(failure)
		return nil
	}
	ends, err := j.plumb(spec, who)
	if err != nil {
		return err
	}
	defer ends.close()
	attr, err := j.attributes(cwd, env, who, ends)
	if err != nil {
		j.unplumb()
		return err
	}
	if attr.Sys.UseCgroupFD {
		defer syscall.Close(attr.Sys.CgroupFD)
	}
	j.pending += ends.streams
	j.limitHits = j.table.limitHits()
	if err := j.fork(program, spec.Argv, attr); err != nil {
		j.pending -= ends.streams
		j.unplumb()
		j.fail(explain(err, program))
		return nil
	}
	j.attend(spec)
	return nil
}

// fork starts the program, or the shell on it when it is a script without a first line, as execvp(3) does.
func (j *Job) fork(program string, argv []string, attr *syscall.ProcAttr) (err error) {
	start := func() (int, error) { return syscall.ForkExec(program, argv, attr) }
	j.proc, err = j.table.reaper.Start(start, j.exited)
	if err == syscall.ENOEXEC {
		program, argv = "/bin/sh", append([]string{"sh", program}, argv[1:]...)
		j.proc, err = j.table.reaper.Start(start, j.exited)
	}
	return err
}

// attend starts what accompanies a running program.
func (j *Job) attend(spec Spec) {
	for i := range j.streams {
		if j.streams[i].file != nil {
			go j.pump(i)
		}
	}
	if j.stdin.file != nil {
		go j.feed()
	}
	if spec.Timeout > 0 {
		j.mu.Lock()
		j.timer = time.AfterFunc(spec.Timeout, func() { j.expire(spec.Grace) })
		j.mu.Unlock()
	}
}

// fail ends a job whose program could not be started.
func (j *Job) fail(f startFailure) {
	j.mu.Lock()
	j.failure, j.gone = f, true
	j.mu.Unlock()
	j.done()
}

// attributes says how the child is set up: own session, group and user, and its cgroup from the first instruction.
func (j *Job) attributes(cwd string, env []string, who account.Account, e *ends) (*syscall.ProcAttr, error) {
	sys := &syscall.SysProcAttr{Setsid: true, Setctty: e.terminal}
	// As root without groups the child is what the agent is.
	if who.UID != 0 || who.GID != 0 || len(who.Groups) > 0 {
		sys.Credential = &syscall.Credential{Uid: who.UID, Gid: who.GID, Groups: who.Groups}
		if os.Geteuid() == int(who.UID) && os.Geteuid() != 0 {
			sys.Credential = nil // tests of a normal user
		}
	}
	if j.table.group != nil {
		group, err := j.table.takeGroup()
		if err != nil {
			return nil, err
		}
		fd, err := group.Open()
		if err != nil {
			return nil, err
		}
		j.group, sys.UseCgroupFD, sys.CgroupFD = group, true, fd
	}
	fds := []uintptr{uintptr(e.fds[0]), uintptr(e.fds[1]), uintptr(e.fds[2])}
	return &syscall.ProcAttr{Dir: cwd, Env: env, Files: fds, Sys: sys}, nil
}
