package launch

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	asLauncher = "PYRO_TEST_LAUNCHER"
	patience   = 20 * time.Second // for an event that will come; nothing here waits for time to pass
	machineID  = "0123456789ab"
	sleeper    = "echo ready >&3; exec sleep 1000"
)

// The test binary is also the launcher, and it inherits whatever a launcher leaves behind.
func TestMain(m *testing.M) {
	if os.Getenv(asLauncher) != "" {
		os.Exit(Main(os.Args[1:]))
	}
	if err := prctl(prSetChildSubreaper, 1); err != nil {
		panic(err)
	}
	code := m.Run()
	if left := children(); len(left) > 0 {
		println("processes left behind:", len(left))
		code = 1
	}
	os.Exit(code)
}

type fields map[string]any

// machinePlan is a good plan for a shell script; its owner is the test, so a crash of the test
// binary leaves nothing behind.
func machinePlan(t *testing.T, script string) fields {
	t.Helper()
	directory := filepath.Join(t.TempDir(), machineID)
	if err := os.Mkdir(directory, 0o700); err != nil {
		t.Fatal(err)
	}
	return fields{
		"argv": []string{"/bin/sh", "-c", script}, "env": fields{"PATH": os.Getenv("PATH")},
		"files": []int{}, "uid": -1, "gid": -1, "groups": []int{}, "owner": processOwner(t, os.Getpid()),
		"deadline_unix_ms": 0, "directory": directory, "keep_directory": false, "status_fd": 0,
		"rlimits": fields{}, "oom_score_adj": 0,
		"console": fields{"path": filepath.Join(directory, "console.log"), "limit": 1 << 20},
		"log":     fields{"path": filepath.Join(directory, "vmm.log"), "limit": 1 << 20},
	}
}

func processOwner(t *testing.T, pid int) fields {
	t.Helper()
	ticks, err := startTicks(pid)
	if err != nil {
		t.Fatal(err)
	}
	return fields{"pid": pid, "start_ticks": ticks}
}

func (f fields) with(changes fields) fields {
	maps.Copy(f, changes)
	return f
}

func (f fields) directory() string { return f["directory"].(string) }

// running is a launcher with the ends of its pipes that the test holds.
type running struct {
	t      *testing.T
	cmd    *exec.Cmd
	events *bufio.Reader
	status *os.File
	alive  *bufio.Reader // what the VMM writes to descriptor 3; at its end, no process has it open
	stderr strings.Builder
	exited chan struct{}
}

// launch starts a launcher. The child's descriptor 3 is the alive pipe, more follow from 4 on.
func launch(t *testing.T, plan fields, more ...*os.File) *running {
	t.Helper()
	r := begin(t, more, func(status int, files []int) any {
		plan["status_fd"], plan["files"] = status, files
		return plan
	})
	return r
}

// begin wires the pipes; describe gets the numbers the launcher will see and returns the plan.
func begin(t *testing.T, more []*os.File, describe func(status int, files []int) any) *running {
	t.Helper()
	planReader, planWriter := pipe(t)
	statusReader, statusWriter := pipe(t)
	aliveReader, aliveWriter := pipe(t)
	r := &running{t: t, status: statusReader, events: bufio.NewReader(statusReader),
		alive: bufio.NewReader(aliveReader), exited: make(chan struct{})}
	for _, file := range []*os.File{statusReader, aliveReader} {
		if err := file.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
	}
	r.cmd = exec.Command(os.Args[0], "3")
	r.cmd.Env = append(os.Environ(), asLauncher+"=1")
	r.cmd.Stderr = &r.stderr
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	r.cmd.ExtraFiles = append([]*os.File{planReader, statusWriter, aliveWriter}, more...)
	files := []int{}
	for i := range r.cmd.ExtraFiles[2:] {
		files = append(files, 5+i)
	}
	text, err := json.Marshal(describe(4, files))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	closeFiles(planReader, statusWriter, aliveWriter)
	go func() { _ = r.cmd.Wait(); close(r.exited) }()
	t.Cleanup(func() { _ = r.cmd.Process.Kill(); <-r.exited })
	go func() { _, _ = planWriter.Write(text); planWriter.Close() }() // EPIPE when it is refused early
	return r
}

func pipe(t *testing.T) (*os.File, *os.File) {
	t.Helper()
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeFiles(reader, writer) })
	return reader, writer
}

func closeFiles(files ...*os.File) {
	for _, file := range files {
		file.Close()
	}
}

type anyEvent struct {
	Event, Error, Reason string
	PID                  int
	StartTicks           uint64 `json:"start_ticks"`
	ExitCode             int    `json:"exit_code"`
	Signal               int
}

func (r *running) next(kind string) anyEvent {
	r.t.Helper()
	line, err := r.events.ReadBytes('\n')
	if err != nil {
		r.t.Fatalf("no %s event: %v; stderr: %s", kind, err, r.stderr.String())
	}
	var event anyEvent
	if err := json.Unmarshal(line, &event); err != nil || event.Event != kind {
		r.t.Fatalf("want %s, got %s", kind, line)
	}
	return event
}

// ready waits for the script's word that it runs.
func (r *running) ready() anyEvent {
	r.t.Helper()
	event := r.next("started")
	r.word("ready")
	return event
}

func (r *running) word(want string) {
	r.t.Helper()
	if got, err := r.alive.ReadString('\n'); err != nil || got != want+"\n" {
		r.t.Fatalf("want %q from the VMM, got %q, %v", want, got, err)
	}
}

// dead waits until every process that the VMM started is gone: none holds the alive pipe.
func (r *running) dead() {
	r.t.Helper()
	if _, err := io.Copy(io.Discard, r.alive); err != nil {
		r.t.Fatalf("a process survives: %v", err)
	}
}

// code waits for the launcher's own end.
func (r *running) code() int {
	r.t.Helper()
	select {
	case <-r.exited:
		return r.cmd.ProcessState.ExitCode()
	case <-time.After(patience):
		r.t.Fatal("the launcher does not end")
		return 0
	}
}

func (r *running) signal(signals ...syscall.Signal) {
	r.t.Helper()
	for _, signal := range signals {
		if err := r.cmd.Process.Signal(signal); err != nil {
			r.t.Fatal(err)
		}
	}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, os.ErrNotExist)
}
