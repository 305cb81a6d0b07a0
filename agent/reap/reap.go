// Package reap waits for all children of this process in one place.
//
// As PID 1 the agent inherits every orphan of the guest. Whoever waits for any child also gets the status of jobs, so
// there is exactly one waiter, and nothing else here may use os/exec or wait4.
package reap

import (
	"sync"
	"syscall"
	"unsafe"
)

// Reaper collects exited children.
type Reaper struct {
	mu    sync.Mutex
	some  *sync.Cond // signalled when there may be children again
	procs map[int]*Process
}

// Process is a child started through the reaper.
type Process struct {
	Pid    int
	reaper *Reaper
	onExit func(pid int, status syscall.WaitStatus)
	reaped bool
}

// New starts a reaper. A program has at most one.
func New() *Reaper {
	r := &Reaper{procs: map[int]*Process{}}
	r.some = sync.NewCond(&r.mu)
	go r.loop()
	return r
}

// Start forks by the given function and will call onExit once, on the reaper's goroutine, which must neither block nor
// call the reaper. The leader is still a zombie then, so its pid and process group are still its own.
func (r *Reaper) Start(fork func() (int, error), onExit func(pid int, status syscall.WaitStatus)) (*Process, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	pid, err := fork()
	if err != nil {
		return nil, err
	}
	p := &Process{Pid: pid, reaper: r, onExit: onExit}
	r.procs[pid] = p
	r.some.Signal()
	return p, nil
}

// SignalGroup signals the process group that the process leads, and says whether anyone was there. A process that has
// been reaped gets nothing: its number may belong to another.
func (p *Process) SignalGroup(sig syscall.Signal) bool {
	p.reaper.mu.Lock()
	defer p.reaper.mu.Unlock()
	return !p.reaped && syscall.Kill(-p.Pid, sig) == nil
}

func (r *Reaper) loop() {
	for {
		child, err := peek()
		r.mu.Lock()
		if err == syscall.ECHILD {
			// No child at all, so no orphan can come either, until a process is started.
			for len(r.procs) == 0 {
				r.some.Wait()
			}
		}
		if err == nil {
			r.collect(child)
		}
		r.mu.Unlock()
	}
}

// collect reaps one child under the lock, so that Start never sees a number that is free but still registered.
func (r *Reaper) collect(child exited) {
	pid := int(child.pid)
	if p := r.procs[pid]; p != nil {
		delete(r.procs, pid)
		p.onExit(pid, child.waitStatus())
		p.reaped = true
	}
	syscall.Wait4(pid, nil, syscall.WNOHANG, nil)
}

// exited is the part of siginfo_t that waitid(2) fills in.
type exited struct {
	signo, errno, code int32
	_                  int32
	pid                int32
	uid                uint32
	status             int32
	_                  [100]byte
}

// waitStatus converts to the form that wait4(2) would have given.
func (e exited) waitStatus() syscall.WaitStatus {
	const cldExited, cldDumped = 1, 3
	switch e.code {
	case cldExited:
		return syscall.WaitStatus(e.status << 8)
	case cldDumped:
		return syscall.WaitStatus(e.status | 0x80)
	}
	return syscall.WaitStatus(e.status)
}

// peek waits until some child has exited and leaves it a zombie.
func peek() (child exited, err error) {
	const (
		pAll    = 0
		wExited = 4
		wNowait = 0x1000000
	)
	_, _, errno := syscall.Syscall6(syscall.SYS_WAITID, pAll, 0, uintptr(unsafe.Pointer(&child)), wExited|wNowait, 0, 0)
	if errno != 0 {
		return child, errno
	}
	return child, nil
}
