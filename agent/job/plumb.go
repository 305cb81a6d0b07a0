package job

import (
	"fmt"
	"os"
	"syscall"

	"pyro.dev/agent/account"
)

// ends are the job's own ends of its pipes or its terminal, as descriptors 0, 1 and 2.
type ends struct {
	fds      [3]int
	streams  int
	terminal bool
}

func (e *ends) close() {
	for i, fd := range e.fds {
		if fd >= 0 && (i == 0 || fd != e.fds[i-1]) {
			syscall.Close(fd)
		}
	}
}

// plumb makes pipes or a terminal. Our ends are non-blocking and in the runtime's poller.
func (j *Job) plumb(spec Spec, who account.Account) (e *ends, err error) {
	e = &ends{fds: [3]int{-1, -1, -1}}
	if spec.Terminal != nil {
		master, slave, err := openTerminal(*spec.Terminal, who.UID)
		if err != nil {
			return nil, fmt.Errorf("terminal: %w", err)
		}
		j.streams[Stdout].file, j.stdin.file, j.stdin.terminal = master, master, master
		return &ends{[3]int{slave, slave, slave}, 1, true}, nil
	}
	defer func() {
		if err != nil {
			e.close()
			j.unplumb()
		}
	}()
	if spec.Stdin {
		e.fds[0], j.stdin.file, err = pipeTo()
	} else {
		e.fds[0], err = syscall.Open(os.DevNull, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	}
	for i := 0; i < 2 && err == nil; i++ {
		j.streams[i].file, e.fds[i+1], err = pipeFrom()
	}
	e.streams = 2
	return e, err
}

// unplumb closes our ends of a job that was not started.
func (j *Job) unplumb() {
	for i := range j.streams {
		if j.streams[i].file != nil {
			j.streams[i].file.Close()
			j.streams[i].file = nil
		}
	}
	if j.stdin.file != nil {
		j.stdin.file.Close()
		j.stdin.file, j.stdin.terminal = nil, nil
	}
}

func pipeFrom() (ours *os.File, theirs int, err error) {
	var p [2]int
	if err := syscall.Pipe2(p[:], syscall.O_CLOEXEC); err != nil {
		return nil, -1, err
	}
	syscall.SetNonblock(p[0], true)
	return os.NewFile(uintptr(p[0]), "output"), p[1], nil
}

func pipeTo() (theirs int, ours *os.File, err error) {
	var p [2]int
	if err := syscall.Pipe2(p[:], syscall.O_CLOEXEC); err != nil {
		return -1, nil, err
	}
	syscall.SetNonblock(p[1], true)
	return p[0], os.NewFile(uintptr(p[1]), "input"), nil
}
