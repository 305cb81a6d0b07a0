package launch

import (
	"fmt"
	"os"
	"strconv"
	"syscall"
)

const oomFile = "/proc/self/oom_score_adj"

// child is the VMM and everything that came out of it. Its process is reaped only by end and
// handOver: as long as it is not, its number and its group's number cannot belong to a stranger.
type child struct {
	pid    int
	reaped bool
	status syscall.WaitStatus
}

// confine prepares this process, and with it the child, for a program that may turn hostile.
func confine(p *plan) error {
	// Of this thread only, which is the one that starts the child.
	if err := prctl(prSetNoNewPrivs, 1); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	// What the child leaves behind becomes ours, so that it can be found and killed.
	if err := prctl(prSetChildSubreaper, 1); err != nil {
		return fmt.Errorf("become subreaper: %w", err)
	}
	for name, value := range p.Rlimits {
		limit := syscall.Rlimit{Cur: uint64(value), Max: uint64(value)} // -1 is the kernel's infinity
		// Through this wrapper, because it also tells the runtime not to restore nofile in the child.
		if err := syscall.Setrlimit(rlimitNumbers[name], &limit); err != nil {
			return fmt.Errorf("set rlimit %s to %d: %w", name, value, err)
		}
	}
	return nil
}

// startChild must run on the thread that lives as long as the launcher: the parent-death signal
// is sent when the thread that forked ends.
func startChild(p *plan, null, console, log int) (*child, error) {
	files := []uintptr{uintptr(null), uintptr(console), uintptr(log)}
	for _, fd := range p.Files {
		files = append(files, uintptr(fd))
	}
	program, argv := p.Argv[0], p.Argv
	var step *stage
	if p.networked() {
		var err error
		if step, err = newStage(p); err != nil {
			return nil, err
		}
		defer step.close()
		program, argv = ownProgram, step.argv(len(files))
		files = append(files, step.descriptors()...)
	}
	attributes := &syscall.ProcAttr{
		Dir:   "/",
		Env:   p.environment(),
		Files: files,
		Sys:   &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL, Credential: p.credential()},
	}
	p.isolate(attributes.Sys)
	restore := raiseOOMScore(p.OOMScoreAdj)
	pid, err := syscall.ForkExec(program, argv, attributes)
	restore()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", program, err)
	}
	started := &child{pid: pid}
	if step != nil {
		if err := step.await(); err != nil {
			started.end()
			return nil, err
		}
	}
	return started, nil
}

// credential is who the child is from the start; a networked one needs our privileges until its network is there.
func (p *plan) credential() *syscall.Credential {
	if p.UID < 0 || p.networked() {
		return nil
	}
	return &syscall.Credential{Uid: uint32(p.UID), Gid: uint32(p.GID), Groups: p.Groups}
}

// raiseOOMScore raises the score for the fork, which copies it, and gives back how to undo it:
// the host shall kill the machine and not its supervisor. It is never lowered (that needs a
// privilege), and a host that refuses is no reason not to start.
func raiseOOMScore(score int) (restore func()) {
	text, err := os.ReadFile(oomFile)
	if err != nil {
		return func() {}
	}
	var current int
	if _, err := fmt.Sscan(string(text), &current); err != nil || current >= score {
		return func() {}
	}
	if os.WriteFile(oomFile, []byte(strconv.Itoa(score)), 0) != nil {
		return func() {}
	}
	return func() { _ = os.WriteFile(oomFile, text, 0) }
}

// gone tells whether the VMM is dead, and buries the strangers that died before it.
func (c *child) gone() bool {
	for {
		pid, err := peekZombie()
		if err != nil || pid == c.pid {
			return true // an error means there are no children at all
		}
		if pid == 0 {
			return false
		}
		if _, _, err := reap(pid, 0); err != nil {
			return true
		}
	}
}

// handOver makes the process that a VMM which exited well left behind the VMM: Firecracker's
// jailer does that when it opens a pid namespace or daemonizes.
func (c *child) handOver() bool {
	_, status, err := reap(c.pid, 0)
	c.reaped, c.status = true, status
	heirs := children()
	if err != nil || !status.Exited() || status.ExitStatus() != 0 || len(heirs) == 0 {
		return false
	}
	c.pid, c.reaped = heirs[0], false
	return true
}

// end kills the VMM and all that descends from it, and returns when nothing is left.
func (c *child) end() {
	if !c.reaped {
		_ = syscall.Kill(-c.pid, syscall.SIGKILL) // no such group after a handover
		_ = syscall.Kill(c.pid, syscall.SIGKILL)
		if _, status, err := reap(c.pid, 0); err == nil {
			c.status = status
		}
		c.reaped = true
	}
	for {
		pid, _, err := reap(-1, syscall.WNOHANG)
		if err != nil {
			return // no children
		}
		if pid > 0 {
			continue
		}
		// Someone left the group. Killing it hands its own children to us: next round.
		for _, pid := range children() {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		if _, _, err := reap(-1, 0); err != nil {
			return
		}
	}
}

// children lists the living children of this process, adopted ones too. They are unreaped, so
// the numbers stay theirs.
func children() []int {
	proc, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer proc.Close()
	names, err := proc.Readdirnames(-1)
	if err != nil {
		return nil
	}
	self := strconv.Itoa(os.Getpid())
	var found []int
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		fields, err := statFields(pid)
		if err == nil && string(fields[0]) != "Z" && string(fields[1]) == self {
			found = append(found, pid)
		}
	}
	return found
}

// result is the exit code (-1 after a signal) and the signal (0 without one).
func (c *child) result() (code, signal int) {
	if c.status.Signaled() {
		return -1, int(c.status.Signal())
	}
	return c.status.ExitStatus(), 0
}
