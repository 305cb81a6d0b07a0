package launch

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// ask writes a new deadline as its users do and waits for the answer: the file is gone.
func (r *running) ask(directory, text string) {
	r.t.Helper()
	name := filepath.Join(directory, deadlineName)
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
	r.signal(syscall.SIGUSR1)
}

func (r *running) taken(directory string) {
	r.t.Helper()
	for limit := time.Now().Add(patience); exists(filepath.Join(directory, deadlineName)); time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			r.t.Fatal("the new deadline was not taken")
		}
	}
}

func inMS(after time.Duration) string {
	return strconv.FormatInt(time.Now().Add(after).UnixMilli(), 10)
}

func TestALaterDeadlineReplacesTheFirst(t *testing.T) {
	plan := machinePlan(t, sleeper).with(fields{"deadline_unix_ms": time.Now().Add(time.Second).UnixMilli()})
	r := launch(t, plan)
	r.ready()
	r.ask(plan.directory(), inMS(time.Hour))
	r.taken(plan.directory())
	// An end that the first deadline brings would come before this one.
	r.ask(plan.directory(), inMS(1200*time.Millisecond))
	r.taken(plan.directory())
	began := time.Now()
	if end := r.next("exited"); end.Reason != "ttl" || time.Since(began) < 600*time.Millisecond {
		t.Fatalf("%+v after %s", end, time.Since(began))
	}
}

func TestADeadlineThatCannotBeMeantChangesNothing(t *testing.T) {
	far := inMS(furthestDeadline + time.Hour)
	for name, text := range map[string]string{
		"nothing": "", "words": "now", "zero": "0", "negative": "-5", "far away": far, "long": far + "                    ",
	} {
		t.Run(name, func(t *testing.T) {
			plan := machinePlan(t, sleeper)
			r := launch(t, plan)
			r.ready()
			r.ask(plan.directory(), text)
			r.signal(syscall.SIGTERM)
			if end := r.next("exited"); end.Reason != "stop" {
				t.Fatalf("%+v", end)
			}
			if !exists(filepath.Join(plan.directory(), deadlineName)) {
				t.Fatal("the refused file must stay")
			}
		})
	}
}

func TestADeadlineBehindALinkIsNotRead(t *testing.T) {
	plan := machinePlan(t, sleeper)
	outside := filepath.Join(t.TempDir(), "deadline")
	if err := os.WriteFile(outside, []byte(inMS(0)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(plan.directory(), deadlineName)); err != nil {
		t.Fatal(err)
	}
	r := launch(t, plan)
	r.ready()
	if exists(filepath.Join(plan.directory(), deadlineName)) {
		t.Fatal("what an earlier life left must go at the start")
	}
	if err := os.Symlink(outside, filepath.Join(plan.directory(), deadlineName)); err != nil {
		t.Fatal(err)
	}
	r.signal(syscall.SIGUSR1, syscall.SIGTERM)
	if end := r.next("exited"); end.Reason != "stop" {
		t.Fatalf("%+v", end)
	}
}

func TestAReleasedMachineOutlivesItsOwner(t *testing.T) {
	owner := startOwner(t)
	plan := machinePlan(t, sleeper).with(fields{"owner": processOwner(t, owner.Process.Pid)})
	r := launch(t, plan)
	r.ready()
	release := filepath.Join(plan.directory(), releaseName)
	if err := os.WriteFile(release, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r.signal(syscall.SIGUSR1)
	for limit := time.Now().Add(patience); exists(release); time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal("the release was not taken")
		}
	}
	if err := owner.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = owner.Wait()
	r.ask(plan.directory(), inMS(time.Hour)) // it still listens
	r.taken(plan.directory())
	r.signal(syscall.SIGTERM)
	if end := r.next("exited"); end.Reason != "stop" || !exists(plan.directory()) {
		t.Fatalf("%+v", end)
	}
}

func TestTheDirectoryTellsOfTheEnd(t *testing.T) {
	plan := machinePlan(t, "echo ready >&3; kill -SEGV $$")
	r := launch(t, plan)
	r.ready()
	r.next("exited")
	var told ending
	if err := json.Unmarshal([]byte(readFile(t, filepath.Join(plan.directory(), endName))), &told); err != nil {
		t.Fatal(err)
	}
	if told.Reason != reasonVMM || told.Signal != int(syscall.SIGSEGV) || told.ExitCode != -1 || told.UnixMS == 0 {
		t.Fatalf("%+v", told)
	}
}
