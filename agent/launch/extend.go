package launch

import (
	"errors"
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	releaseName  = "release"
	deadlineName = "deadline"
	maxDeadline  = 32 // bytes of the file
	// furthestDeadline is how far ahead a new deadline may lie: the longest life a machine is given, and some slack.
	furthestDeadline = 8 * 24 * time.Hour
)

// obey does what the files in the machine's directory ask for, at SIGUSR1. What is refused stays, which tells whoever
// wrote it.
func (s *supervisor) obey() {
	_ = s.release()
	_ = s.extend()
}

// release lets the machine outlive its owner, when there is a file `release`: whoever starts a machine that is to
// outlive it owns it until it is on record, so that it cannot be lost in between.
func (s *supervisor) release() error {
	machine, err := openMachineDir(s.plan.Directory)
	if err != nil {
		return err
	}
	defer machine.close()
	if _, err := machine.read(releaseName, maxDeadline); err != nil {
		return err
	}
	if s.owner != nil {
		s.owner.pidfd.Close()
		s.owner = nil
	}
	return unlinkAt(machine.fd, releaseName, 0)
}

// extend takes the instant in the file `deadline` of the machine's directory as the new end of its life. Taking the
// file away is the answer: who wrote it knows then that it counts. A file that is not one of ours, or whose instant
// cannot be meant, changes nothing and stays.
func (s *supervisor) extend() error {
	machine, err := openMachineDir(s.plan.Directory)
	if err != nil {
		return err
	}
	defer machine.close()
	unixMS, err := machine.readDeadline()
	if err != nil {
		return err
	}
	if time.UnixMilli(unixMS).After(time.Now().Add(furthestDeadline)) {
		return errors.New("the new deadline is too far away")
	}
	if err := s.deadline.set(unixMS); err != nil {
		return err
	}
	return unlinkAt(machine.fd, deadlineName, 0)
}

// readDeadline reads a positive number of milliseconds since 1970.
func (m *machineDir) readDeadline() (int64, error) {
	text, err := m.read(deadlineName, maxDeadline)
	if err != nil {
		return 0, err
	}
	unixMS, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	if err != nil || unixMS <= 0 {
		return 0, errors.New("the new deadline is no instant")
	}
	return unixMS, nil
}

// read returns a small regular file of ours in the directory.
func (m *machineDir) read(name string, most int) (string, error) {
	fd, err := openAt(m.fd, name, syscall.O_RDONLY|syscall.O_NONBLOCK)
	if err != nil {
		return "", fmt.Errorf("open %s: %w", name, err)
	}
	defer syscall.Close(fd)
	var stat syscall.Stat_t
	if err := syscall.Fstat(fd, &stat); err != nil {
		return "", err
	}
	if stat.Mode&syscall.S_IFMT != syscall.S_IFREG || int(stat.Uid) != syscall.Geteuid() || stat.Size > int64(most) {
		return "", fmt.Errorf("%s is not a small file of ours", name)
	}
	buffer := make([]byte, most)
	n, err := syscall.Read(fd, buffer)
	if err != nil {
		return "", err
	}
	return string(buffer[:n]), nil
}

// openAt opens an entry of the directory itself, never through a link.
func openAt(directory int, name string, flags int) (int, error) {
	if name == "" || path.Base(name) != name {
		return -1, io.ErrUnexpectedEOF
	}
	return syscall.Openat(directory, name, flags|syscall.O_NOFOLLOW|syscall.O_CLOEXEC, 0o600)
}
