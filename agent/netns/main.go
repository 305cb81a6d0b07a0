package netns

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"syscall"

	"pyro.dev/agent/confine"
	"pyro.dev/agent/gate"
)

const (
	firstFile  = 3
	exitFailed = 1
	maxStage   = 4 << 20
)

// Main runs `pyro-agent netns <descriptor>`. Descriptors from 3 up to this one are the VMM's; this one has the Stage, the
// next takes an error and closes when all went well. It returns only when something failed.
func Main(args []string) int {
	// Namespaces and privileges belong to a thread until the exec; and the gate's parent is this thread.
	runtime.LockOSThread()
	fd, err := descriptorOf(args)
	if err != nil {
		return complain(err)
	}
	// The VMM's descriptors are nobody else's.
	for own := firstFile; own <= fd+1; own++ {
		syscall.CloseOnExec(own)
	}
	report := os.NewFile(uintptr(fd+1), "report")
	err = enter(fd)
	fmt.Fprint(report, err)
	return complain(err)
}

func descriptorOf(args []string) (int, error) {
	if len(args) == 1 {
		if fd, err := strconv.Atoi(args[0]); err == nil && fd >= firstFile {
			return fd, nil
		}
	}
	return 0, errors.New("usage: pyro-agent netns <descriptor>")
}

func complain(err error) int {
	fmt.Fprintln(os.Stderr, "pyro-agent netns:", err)
	return exitFailed
}

// enter makes the network and becomes the VMM.
func enter(fd int) error {
	stage, p, err := read(fd)
	if err != nil {
		return err
	}
	var link *gateLink
	if p.Uplink.Kind != gate.KindNone {
		if link, err = startGate(); err != nil { // while we are still in the host's namespace
			return err
		}
	}
	if err := syscall.Unshare(syscall.CLONE_NEWNET); err != nil {
		return fmt.Errorf("make a network namespace: %w", err)
	}
	tap, inside, err := p.furnish()
	if err != nil {
		return err
	}
	if link != nil {
		if err := link.connect(p, inside); err != nil {
			return err
		}
	}
	inside.Close()
	if p.Descriptor {
		// In place of the descriptor we were told through, which has been read.
		if err := syscall.Dup3(tap, fd, 0); err != nil {
			return err
		}
	}
	for own := firstFile; own < fd; own++ {
		keepOnExec(own)
	}
	return stage.become(p)
}

func read(fd int) (*Stage, *Plan, error) {
	// Not as an os.File: the number has to stay taken until the TAP device gets it.
	text, err := io.ReadAll(io.LimitReader(descriptor(fd), maxStage))
	if err != nil {
		return nil, nil, err
	}
	stage := &Stage{}
	if err := json.Unmarshal(text, stage); err != nil {
		return nil, nil, fmt.Errorf("stage: %w", err)
	}
	p, err := Parse(stage.Network)
	return stage, p, err
}

type descriptor int

// Read implements io.Reader.
func (d descriptor) Read(buffer []byte) (int, error) {
	for {
		n, err := syscall.Read(int(d), buffer)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return 0, err
		case n == 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

func keepOnExec(fd int) {
	_, _, _ = syscall.RawSyscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_SETFD, 0)
}

// become replaces this process with what the launcher was asked to start.
func (s *Stage) become(p *Plan) error {
	if !p.Descriptor {
		return confine.Execute(s.Argv)
	}
	if s.UID >= 0 {
		if err := confine.BecomeUser(int(s.UID), int(s.GID), s.Groups); err != nil {
			return err
		}
	}
	return confine.Become(s.Argv)
}
