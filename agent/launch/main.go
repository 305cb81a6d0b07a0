// Package launch supervises one virtual machine monitor on the host: it starts it, ends it when
// its owner dies, its time is up or somebody asks, keeps its output within bounds, and says on
// a pipe what became of it.
package launch

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strconv"
	"syscall"
)

const (
	exitOK     = 0
	exitFailed = 1

	gcPercent = 10 // there is next to no garbage after the start
)

// Main runs `pyro-agent launch <fd>`; args is what follows the word launch.
func Main(args []string) int {
	outlive()
	text, err := receive(args)
	if err != nil {
		return complain(err)
	}
	p, err := parsePlan(text)
	if err != nil {
		if fd, ok := statusOf(text); ok && inherited(fd) {
			status{fd}.fail(err)
		}
		return complain(err)
	}
	s := &supervisor{plan: p, status: status{p.StatusFD}}
	if err := s.start(); err != nil {
		s.status.fail(err)
		return exitFailed
	}
	s.run()
	return exitOK
}

// outlive survives what a terminal or a closed pipe sends. Caught, not ignored: an ignored signal
// would stay ignored in the VMM.
func outlive() {
	nobody := make(chan os.Signal, 1)
	signal.Notify(nobody, syscall.SIGINT, syscall.SIGHUP, syscall.SIGPIPE, syscall.SIGQUIT)
}

func complain(err error) int {
	fmt.Fprintln(os.Stderr, "pyro-agent launch:", err)
	return exitFailed
}

func receive(args []string) ([]byte, error) {
	if len(args) != 1 {
		return nil, errors.New("usage: pyro-agent launch <descriptor of the plan>")
	}
	fd, err := strconv.Atoi(args[0])
	if err != nil || fd < firstFile || !inherited(fd) {
		return nil, fmt.Errorf("%.20q is not an inherited descriptor", args[0])
	}
	source := os.NewFile(uintptr(fd), "plan")
	defer source.Close()
	return readAll(source)
}

// supervisor holds one machine from its start to its end.
type supervisor struct {
	plan     *plan
	status   status
	owner    *owner
	deadline *deadline
	streams  []*stream
	child    *child
	deaths   chan os.Signal
	stops    chan os.Signal
	extends  chan os.Signal
}

// start does everything that can fail. The owner is under watch before the VMM exists.
func (s *supervisor) start() error {
	if err := adopt(s.plan); err != nil {
		return err
	}
	null, err := detach()
	if err != nil {
		return err
	}
	if err := os.Chdir("/"); err != nil { // hold no directory of the user's busy
		return err
	}
	if s.plan.Owner != nil {
		machine, err := openMachineDir(s.plan.Directory)
		if err != nil {
			return err
		}
		machine.close()
	}
	if s.owner, err = watchOwner(s.plan.Owner); err != nil {
		return err
	}
	if s.deadline, err = newDeadline(s.plan.DeadlineUnixMS); err != nil {
		return err
	}
	// Until here SIGTERM just ends the launcher: there is nothing to stop.
	s.deaths, s.stops, s.extends = make(chan os.Signal, 1), make(chan os.Signal, 1), make(chan os.Signal, 1)
	signal.Notify(s.deaths, syscall.SIGCHLD)
	signal.Notify(s.stops, syscall.SIGTERM)
	signal.Notify(s.extends, syscall.SIGUSR1)
	s.forgetEnding()
	// What is set up from here on belongs to a thread. It must live until the launcher ends
	// (parent-death signal), as this goroutine does. Not earlier: a locked thread is slow to wake.
	runtime.LockOSThread()
	if err := confine(s.plan); err != nil {
		return err
	}
	if err := lend(s.plan); err != nil {
		return err
	}
	return s.launch(null)
}

func (s *supervisor) launch(null int) error {
	console, stdout, err := newStream(s.plan.Console)
	if err != nil {
		return err
	}
	log, stderr, err := newStream(s.plan.Log)
	if err != nil {
		return err
	}
	streams := []*stream{console, log}
	for _, spec := range s.plan.ExtraLogs {
		extra, err := newExtraStream(spec)
		if err != nil {
			return err
		}
		streams = append(streams, extra)
	}
	s.child, err = startChild(s.plan, null, stdout, stderr)
	// Our copies must go: they would keep the child's sockets and pipes open after its death.
	closeAll(null, stdout, stderr)
	closeAll(s.plan.Files...)
	if err != nil {
		return err
	}
	s.streams = streams
	for _, one := range s.streams {
		go one.copy()
	}
	s.announce("started")
	settle()
	return nil
}

// settle makes the launcher small for its long wait, while the VMM comes up.
func settle() {
	runtime.GOMAXPROCS(1)
	debug.SetGCPercent(gcPercent)
	debug.FreeOSMemory() // the plan and its parsing
}

func (s *supervisor) announce(event string) {
	ticks, err := startTicks(s.child.pid)
	if err != nil {
		ticks = 0 // no /proc: an owner would have been refused already
	}
	s.status.send(startedEvent{Event: event, PID: s.child.pid, StartTicks: ticks})
}

// run waits for the end of the machine, whatever brings it, and tells it when all is over:
// processes dead, output on disk, directory gone if it is to go.
func (s *supervisor) run() {
	why := s.wait()
	s.child.end()
	letGo(s.streams...)
	drain(s.streams...)
	left := removeCgroups(s.plan.Cgroups)
	if s.owner.dead() { // now, too: it may have died while another end was under way
		why = reasonOwner
		if !s.plan.KeepDirectory {
			if err := removeMachineDir(s.plan.Directory); err != nil {
				left = clip(err)
			}
		}
	}
	code, signal := s.child.result()
	s.leave(code, signal, why)
	s.status.send(exitedEvent{Event: "exited", ExitCode: code, Signal: signal, Reason: why, Error: left})
}

func (s *supervisor) wait() reason {
	for {
		select {
		case <-s.deaths:
			if !s.child.gone() {
				continue
			}
			if !s.plan.Handover || !s.child.handOver() {
				return reasonVMM
			}
			s.announce("handover")
		case <-s.extends:
			s.obey()
		case <-s.stops:
			return reasonStop
		case <-s.owner.death():
			return reasonOwner
		case <-s.deadline.fired:
			return reasonTTL
		}
	}
}
