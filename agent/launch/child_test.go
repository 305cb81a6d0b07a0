package launch

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// console runs a script to its end and returns what it printed: it is on disk before "exited".
func console(t *testing.T, plan fields, more ...*os.File) string {
	t.Helper()
	r := launch(t, plan, more...)
	r.next("started")
	if end := r.next("exited"); end.ExitCode != 0 || end.Reason != "vmm" {
		t.Fatalf("%+v: %s", end, readFile(t, filepath.Join(plan.directory(), "vmm.log")))
	}
	return readFile(t, filepath.Join(plan.directory(), "console.log"))
}

func TestTheChildSeesItsFilesInOrderAndNothingElse(t *testing.T) {
	var files []*os.File
	for _, text := range []string{"first", "second"} {
		reader, writer := pipe(t)
		if _, err := writer.WriteString(text + "\n"); err != nil {
			t.Fatal(err)
		}
		closeFiles(writer)
		files = append(files, reader)
	}
	// 6 is the directory that ls itself has open.
	script := "cat <&5; cat <&4; readlink /proc/self/fd/0; pwd; exec ls /proc/self/fd"
	plan := machinePlan(t, script)
	r := begin(t, files, func(status int, numbers []int) any {
		return plan.with(fields{"status_fd": status, "files": []int{numbers[0], numbers[2], numbers[1]}})
	})
	r.next("started")
	r.next("exited")
	got := strings.Fields(readFile(t, filepath.Join(plan.directory(), "console.log")))
	want := "first second /dev/null / 0 1 2 3 4 5 6"
	if strings.Join(got, " ") != want {
		t.Fatalf("got %v, want %s", got, want)
	}
}

func TestADescriptorThatThePlanDoesNotNameIsClosed(t *testing.T) {
	reader, writer := pipe(t)
	r := begin(t, []*os.File{writer}, func(status int, files []int) any {
		return machinePlan(t, sleeper).with(fields{"status_fd": status, "files": files[:1]})
	})
	r.ready()
	closeFiles(writer)
	if _, err := io.ReadAll(reader); err != nil { // ends: neither the launcher nor the VMM has it
		t.Fatal(err)
	}
}

func TestTheChildIsConfined(t *testing.T) {
	plan := machinePlan(t, "ulimit -n; ulimit -c; ulimit -Hn; cat /proc/self/oom_score_adj; "+
		"sed -n 's/NoNewPrivs:\t/new privileges /p; s/SigIgn:\t/ignored /p' /proc/self/status; env; "+
		"[ $(ps -o pgid= -p $$) = $$ ] && echo own group")
	plan.with(fields{"rlimits": fields{"nofile": 123, "core": 0}, "oom_score_adj": 777,
		"env": fields{"PATH": "/usr/bin:/bin", "NAME": "a b"}})
	got := console(t, plan)
	for _, want := range []string{"123\n0\n123\n777\n", "\nnew privileges 1\n", "\nNAME=a b\n", "\nown group\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing in %q", want, got)
		}
	}
	// Only the signals that have names: whoever started the tests may ignore real-time ones.
	_, ignored, _ := strings.Cut(got, "\nignored ")
	ignored, _, _ = strings.Cut(ignored, "\n")
	if mask, err := strconv.ParseUint(ignored, 16, 64); err != nil || mask&0x7fffffff != 0 {
		t.Errorf("the child ignores the signals %q", ignored)
	}
	if strings.Contains(got, asLauncher) {
		t.Error("the launcher's environment reached the child")
	}
}

func TestTheLauncherKeepsItsOwnOOMScore(t *testing.T) {
	before := readFile(t, oomFile)
	r := launch(t, machinePlan(t, sleeper).with(fields{"oom_score_adj": 900}))
	started := r.ready()
	if got := readFile(t, fmt.Sprintf("/proc/%d/oom_score_adj", started.PID)); got != "900\n" {
		t.Errorf("VMM has %q", got)
	}
	if got := readFile(t, fmt.Sprintf("/proc/%d/oom_score_adj", r.cmd.Process.Pid)); got != before {
		t.Errorf("launcher has %q instead of %q", got, before)
	}
}

func TestIdentity(t *testing.T) {
	const script = "id -u; id -g; id -G"
	if os.Geteuid() != 0 {
		want := fmt.Sprintf("%d\n%d\n", os.Geteuid(), os.Getegid())
		if got := console(t, machinePlan(t, script)); !strings.HasPrefix(got, want) {
			t.Fatalf("got %q", got)
		}
		r := launch(t, machinePlan(t, script).with(fields{"uid": 0, "gid": 0}))
		if failed := r.next("failed"); !strings.Contains(failed.Error, "not permitted") {
			t.Fatalf("%+v", failed)
		}
		return
	}
	plan := machinePlan(t, script).with(fields{"uid": 54321, "gid": 54322, "groups": []int{54323, 54324}})
	if got := console(t, plan); got != "54321\n54322\n54322 54323 54324\n" {
		t.Fatalf("got %q", got)
	}
	r := launch(t, machinePlan(t, sleeper).with(fields{"uid": 54321, "gid": 54322}))
	r.ready()
	r.signal(9) // the change of identity must not cost the parent-death signal
	r.dead()
}

func TestAStartThatFailsSaysWhy(t *testing.T) {
	directory := t.TempDir()
	text := filepath.Join(directory, "text")
	if err := os.WriteFile(text, []byte("no program"), 0o700); err != nil {
		t.Fatal(err)
	}
	cases := []struct {
		name   string
		change fields
		want   string
	}{
		{"no such program", fields{"argv": []string{"/no/such/vmm"}}, "start /no/such/vmm: no such file"},
		{"not a program", fields{"argv": []string{text}}, "exec format error"},
		{"a log in no directory", fields{"log": fields{"path": "/no/such/log", "limit": 8192}}, "open /no/such/log"},
		{"a log that is a device", fields{"console": fields{"path": "/dev/full", "limit": 8192}}, "not a regular file"},
		{"a machine directory that is missing", fields{"directory": "/no/such/0123456789ab"}, "machine directory"},
		{"an unknown key", fields{"shell": true}, `unknown key "shell"`},
		{"a limit beyond reason", fields{"rlimits": fields{"nofile": 1 << 40}}, "rlimit nofile"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r := launch(t, machinePlan(t, sleeper).with(c.change))
			if failed := r.next("failed"); !strings.Contains(failed.Error, c.want) {
				t.Fatalf("%+v", failed)
			}
			if code := r.code(); code != 1 {
				t.Fatalf("exit code %d", code)
			}
			r.dead()
		})
	}
}

func TestDescriptorsThatWereNotInheritedAreRefused(t *testing.T) {
	for name, files := range map[string][]int{"closed": {99}, "the plan's own": {3}} {
		t.Run(name, func(t *testing.T) {
			r := begin(t, nil, func(status int, _ []int) any {
				return machinePlan(t, sleeper).with(fields{"status_fd": status, "files": files})
			})
			if failed := r.next("failed"); !strings.Contains(failed.Error, "not inherited") {
				t.Fatalf("%+v", failed)
			}
		})
	}
}
