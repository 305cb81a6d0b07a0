package launch

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestStopEndsTheMachineWhateverItStarted(t *testing.T) {
	cases := map[string]string{
		"one process":                     sleeper,
		"a process that ignores SIGTERM":  "trap '' TERM INT HUP; " + sleeper,
		"children in its group":           "sleep 1000 & sleep 1000 & echo ready >&3; wait",
		"grandchildren in other sessions": "setsid sh -c 'setsid sleep 1000 & echo ready >&3; wait' & wait",
		"a stopped process":               "sleep 1000 & kill -STOP $!; " + sleeper,
	}
	for name, script := range cases {
		t.Run(name, func(t *testing.T) {
			plan := machinePlan(t, script)
			r := launch(t, plan)
			r.ready()
			r.signal(syscall.SIGTERM)
			if end := r.next("exited"); end.Reason != "stop" || end.Signal != 9 || end.ExitCode != -1 {
				t.Fatalf("%+v", end)
			}
			r.dead()
			if r.code() != 0 || !exists(plan.directory()) {
				t.Fatal("the launcher must end well and leave the directory")
			}
		})
	}
}

func TestSignalsOfATerminalDoNotReachTheMachine(t *testing.T) {
	r := launch(t, machinePlan(t, sleeper))
	r.ready()
	r.signal(syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGPIPE, syscall.SIGTERM)
	if end := r.next("exited"); end.Reason != "stop" {
		t.Fatalf("%+v", end)
	}
}

func TestItsOwnEndIsReported(t *testing.T) {
	cases := []struct {
		name, script string
		code, signal int
	}{
		{"exit code", "echo ready >&3; exit 7", 7, 0},
		{"signal", "echo ready >&3; kill -SEGV $$", -1, int(syscall.SIGSEGV)},
		{"exit with children left", "setsid sleep 1000 & sleep 1000 & echo ready >&3; exit 0", 0, 0},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r := launch(t, machinePlan(t, c.script))
			r.ready()
			if end := r.next("exited"); end.Reason != "vmm" || end.ExitCode != c.code || end.Signal != c.signal {
				t.Fatalf("%+v", end)
			}
			r.dead()
			if r.code() != 0 {
				t.Fatal("the launcher failed")
			}
		})
	}
}

func TestStartedNamesTheProcess(t *testing.T) {
	r := launch(t, machinePlan(t, sleeper))
	started := r.ready()
	if ticks, err := startTicks(started.PID); err != nil || ticks != started.StartTicks {
		t.Fatalf("%+v is not the VMM: %d, %v", started, ticks, err)
	}
}

// startOwner is a process that lives until it is killed.
func startOwner(t *testing.T) *exec.Cmd {
	t.Helper()
	owner := exec.Command("/bin/cat")
	if _, err := owner.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := owner.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = owner.Process.Kill(); _ = owner.Wait() })
	return owner
}

func TestOwnersDeathTakesTheMachineAndItsDirectory(t *testing.T) {
	owner := startOwner(t)
	plan := machinePlan(t, "setsid sleep 1000 & "+sleeper).with(fields{"owner": processOwner(t, owner.Process.Pid)})
	outside := filepath.Join(t.TempDir(), "kept")
	for _, err := range []error{
		os.MkdirAll(filepath.Join(plan.directory(), "jail", "dev"), 0o700),
		os.WriteFile(outside, nil, 0o600),
		os.Symlink(filepath.Dir(outside), filepath.Join(plan.directory(), "jail", "link")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	r := launch(t, plan)
	r.ready()
	if err := owner.Process.Kill(); err != nil { // not reaped yet: a zombie is dead, too
		t.Fatal(err)
	}
	if end := r.next("exited"); end.Reason != "owner" || end.Signal != 9 || end.Error != "" {
		t.Fatalf("%+v", end)
	}
	r.dead()
	if exists(plan.directory()) || !exists(outside) {
		t.Fatal("the directory must go, and nothing else")
	}
	if r.code() != 0 {
		t.Fatal("the launcher failed")
	}
}

func TestADirectoryThatIsToBeKeptOutlivesTheOwner(t *testing.T) {
	owner := startOwner(t)
	plan := machinePlan(t, sleeper).with(fields{"owner": processOwner(t, owner.Process.Pid), "keep_directory": true})
	disk := filepath.Join(plan.directory(), "scratch.ext4")
	if err := os.WriteFile(disk, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r := launch(t, plan)
	r.ready()
	if err := owner.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if end := r.next("exited"); end.Reason != "owner" || end.Signal != 9 || end.Error != "" {
		t.Fatalf("%+v", end)
	}
	r.dead()
	if !exists(disk) {
		t.Fatal("the machine's disk is gone")
	}
}

func TestNoStartForAnOwnerThatIsGone(t *testing.T) {
	gone := startOwner(t)
	was := processOwner(t, gone.Process.Pid)
	_ = gone.Process.Kill()
	zombie := processOwner(t, gone.Process.Pid)
	another := processOwner(t, os.Getpid())
	another["start_ticks"] = another["start_ticks"].(uint64) + 1
	check := func(name string, owner fields) {
		t.Run(name, func(t *testing.T) {
			plan := machinePlan(t, sleeper).with(fields{"owner": owner})
			r := launch(t, plan)
			if failed := r.next("failed"); !strings.Contains(failed.Error, "owner is gone") {
				t.Fatalf("%+v", failed)
			}
			if r.code() != 1 || !exists(plan.directory()) {
				t.Fatal("want exit code 1 and the directory untouched")
			}
			r.dead()
		})
	}
	check("a reused pid", another)
	check("a zombie", zombie)
	_ = gone.Wait()
	check("no process", was)
}

func TestTheDeadlineEndsTheMachine(t *testing.T) {
	plan := machinePlan(t, sleeper).with(fields{"deadline_unix_ms": time.Now().Add(500 * time.Millisecond).UnixMilli()})
	r := launch(t, plan)
	r.ready()
	if end := r.next("exited"); end.Reason != "ttl" || end.Signal != 9 {
		t.Fatalf("%+v", end)
	}
	r.dead()
	if !exists(plan.directory()) {
		t.Fatal("the directory is the record of what happened and must stay")
	}
	r = launch(t, machinePlan(t, sleeper).with(fields{"deadline_unix_ms": time.Now().UnixMilli()}))
	if failed := r.next("failed"); !strings.Contains(failed.Error, "deadline") {
		t.Fatalf("%+v", failed)
	}
}

func TestADeadlineCanBeMoved(t *testing.T) {
	d, err := newDeadline(time.Now().Add(time.Hour).UnixMilli())
	if err != nil {
		t.Fatal(err)
	}
	defer d.timer.Close()
	if err := d.set(time.Now().Add(20 * time.Millisecond).UnixMilli()); err != nil {
		t.Fatal(err)
	}
	select {
	case <-d.fired:
	case <-time.After(patience):
		t.Fatal("the new deadline did not fire")
	}
}

func TestTheMachineDiesWithItsLauncher(t *testing.T) {
	r := launch(t, machinePlan(t, sleeper))
	r.ready()
	r.signal(syscall.SIGKILL)
	r.dead()
}

func TestAReaderThatLeftDoesNotMatter(t *testing.T) {
	r := launch(t, machinePlan(t, sleeper))
	r.ready()
	r.status.Close()
	r.signal(syscall.SIGTERM)
	r.dead()
	if r.code() != 0 {
		t.Fatal("the launcher failed")
	}
}

func TestAnHeirBecomesTheMachineWhenThePlanSaysSo(t *testing.T) {
	const script = "setsid sh -c 'echo ready >&3; read word <&4; exit 9' & exit 0"
	t.Run("it ends by itself", func(t *testing.T) {
		reader, writer := pipe(t)
		r := launch(t, machinePlan(t, script).with(fields{"handover": true}), reader)
		started, heir := r.ready(), r.next("handover")
		if ticks, err := startTicks(heir.PID); err != nil || ticks != heir.StartTicks || heir.PID == started.PID {
			t.Fatalf("%+v after %+v: %d, %v", heir, started, ticks, err)
		}
		if _, err := writer.WriteString("go\n"); err != nil {
			t.Fatal(err)
		}
		if end := r.next("exited"); end.Reason != "vmm" || end.ExitCode != 9 {
			t.Fatalf("%+v", end)
		}
		r.dead()
	})
	t.Run("it is stopped", func(t *testing.T) {
		reader, _ := pipe(t)
		r := launch(t, machinePlan(t, script).with(fields{"handover": true}), reader)
		r.ready()
		r.next("handover")
		r.signal(syscall.SIGTERM)
		if end := r.next("exited"); end.Reason != "stop" || end.Signal != 9 {
			t.Fatalf("%+v", end)
		}
		r.dead()
	})
	t.Run("nobody is left", func(t *testing.T) {
		r := launch(t, machinePlan(t, "exit 3").with(fields{"handover": true}))
		r.next("started")
		if end := r.next("exited"); end.Reason != "vmm" || end.ExitCode != 3 {
			t.Fatalf("%+v", end)
		}
	})
}
