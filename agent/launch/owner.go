package launch

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"
)

const startTicksField = 22 // of /proc/<pid>/stat, counted from 1

var errOwnerGone = errors.New("the owner is gone")

// owner watches the process that the machine belongs to. A nil owner lives for ever.
type owner struct {
	pidfd *os.File
	gone  chan struct{}
}

// watchOwner takes hold of the process first and then checks its start time: the other way round
// the pid could be reused in between.
func watchOwner(wanted *ownerPlan) (*owner, error) {
	if wanted == nil {
		return nil, nil
	}
	fd, err := pidfdOpen(wanted.PID)
	if errors.Is(err, syscall.ESRCH) {
		return nil, errOwnerGone
	}
	if err != nil {
		return nil, fmt.Errorf("watch the owner: %w", err)
	}
	pidfd, err := pollable(fd, "owner")
	if err != nil {
		return nil, err
	}
	o := &owner{pidfd: pidfd, gone: make(chan struct{})}
	ticks, err := startTicks(wanted.PID)
	if err != nil || ticks != wanted.StartTicks || o.dead() {
		pidfd.Close()
		return nil, errOwnerGone
	}
	go o.wait()
	return o, nil
}

func (o *owner) wait() {
	raw, err := o.pidfd.SyscallConn()
	if err != nil {
		return
	}
	// The runtime's poller parks this goroutine until the descriptor is readable: the owner died.
	if raw.Read(func(fd uintptr) bool { return poll(int(fd), pollIn, 0) }) == nil {
		close(o.gone)
	}
}

// death is closed when the owner dies.
func (o *owner) death() <-chan struct{} {
	if o == nil {
		return nil
	}
	return o.gone
}

// dead asks now.
func (o *owner) dead() bool {
	if o == nil {
		return false
	}
	dead := false
	if raw, err := o.pidfd.SyscallConn(); err == nil {
		err = raw.Control(func(fd uintptr) { dead = poll(int(fd), pollIn, 0) })
		return dead && err == nil
	}
	return false
}

// pollable hands a descriptor to the runtime's poller, so that waiting on it costs no thread.
func pollable(fd int, name string) (*os.File, error) {
	if err := syscall.SetNonblock(fd, true); err != nil {
		syscall.Close(fd)
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	file := os.NewFile(uintptr(fd), name)
	if err := file.SetReadDeadline(time.Time{}); err != nil { // refused when the poller did not take it
		file.Close()
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return file, nil
}

// startTicks tells two users of one pid apart: the boot-relative time the process started at.
func startTicks(pid int) (uint64, error) {
	fields, err := statFields(pid)
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(string(fields[startTicksField-3]), 10, 64)
}

// statFields gives the fields of /proc/<pid>/stat from the third (state) on. The second is a name
// that may hold blanks and brackets, so the count starts behind its last bracket.
func statFields(pid int) ([][]byte, error) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return nil, err
	}
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	if len(fields) <= startTicksField-3 {
		return nil, fmt.Errorf("/proc/%d/stat is cut short", pid)
	}
	return fields, nil
}
