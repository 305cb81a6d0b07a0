package reap

import (
	"syscall"
	"testing"
)

func TestStatusesReachTheirOwners(t *testing.T) {
	r := New()
	for script, want := range map[string]func(syscall.WaitStatus) bool{
		"exit 0":     func(s syscall.WaitStatus) bool { return s.Exited() && s.ExitStatus() == 0 },
		"exit 200":   func(s syscall.WaitStatus) bool { return s.Exited() && s.ExitStatus() == 200 },
		"kill -9 $$": func(s syscall.WaitStatus) bool { return s.Signaled() && s.Signal() == syscall.SIGKILL },
	} {
		got := make(chan syscall.WaitStatus, 1)
		fork := func() (int, error) {
			return syscall.ForkExec("/bin/sh", []string{"sh", "-c", script}, &syscall.ProcAttr{Sys: &syscall.SysProcAttr{Setsid: true}})
		}
		p, err := r.Start(fork, func(_ int, s syscall.WaitStatus) { got <- s })
		if err != nil {
			t.Fatal(err)
		}
		if s := <-got; !want(s) {
			t.Errorf("%s: %x", script, s)
		}
		if p.SignalGroup(syscall.SIGTERM) {
			t.Error("a reaped process was signalled")
		}
	}
	if _, err := r.Start(func() (int, error) { return 0, syscall.ENOENT }, nil); err != syscall.ENOENT {
		t.Error(err)
	}
}
