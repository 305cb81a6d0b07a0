package job

import (
	"bytes"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"pyro.dev/agent/account"
	"pyro.dev/agent/reap"
)

var reaper = reap.New()

// TestMain makes this process adopt orphans, as PID 1 does, and ends whatever a test has left.
func TestMain(m *testing.M) {
	const setChildSubreaper = 36
	syscall.Syscall(syscall.SYS_PRCTL, setChildSubreaper, 1, 0)
	os.Exit(m.Run())
}

func table() *Table { return NewTable(reaper, nil, account.System) }

func shell(id, script string) Spec {
	return Spec{ID: id, Argv: []string{"/bin/sh", "-c", script}, Cwd: "/"}
}

// result is all that a client saw.
type result struct {
	out   [2]bytes.Buffer
	gaps  uint64
	exit  *Exit
	onOut func()
}

// follow reads events until the end; each output must continue where the last one ended, or leave a gap.
func (r *result) follow(c *Client, from [2]uint64) {
	defer c.Detach()
	buf := make([]byte, 10000)
	for {
		e := c.Next(buf)
		switch e.Kind {
		case Output:
			r.gaps += e.Offset - from[e.Stream]
			from[e.Stream] = e.Offset + uint64(e.Size)
			r.out[e.Stream].Write(buf[:e.Size])
			if r.onOut != nil {
				r.onOut()
			}
		case Ended:
			r.exit = e.Exit
			return
		case Lost:
			return
		}
	}
}

func run(t *testing.T, spec Spec) *result {
	t.Helper()
	_, c, started, err := table().Start(spec, true)
	if err != nil || !started {
		t.Fatal(started, err)
	}
	r := &result{}
	r.follow(c, [2]uint64{})
	return r
}

func TestExitCodes(t *testing.T) {
	dir := t.TempDir()
	script := filepath.Join(dir, "bare")
	if err := os.WriteFile(script, []byte("exit 5\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	cases := map[string]struct {
		argv         []string
		code, signal int
		cause        string
	}{
		"success":               {[]string{"true"}, 0, 0, ""},
		"failure":               {[]string{"sh", "-c", "exit 3"}, 3, 0, ""},
		"killed":                {[]string{"sh", "-c", "kill -9 $$"}, 137, 9, "signal"},
		"not found in PATH":     {[]string{"no-such-program"}, 127, 0, ""},
		"not found":             {[]string{"/no/such/program"}, 127, 0, ""},
		"not executable":        {[]string{plain}, 126, 0, ""},
		"a directory":           {[]string{dir}, 126, 0, ""},
		"script without header": {[]string{script}, 5, 0, ""},
	}
	for name, c := range cases {
		e := run(t, Spec{ID: "1", Argv: c.argv, Cwd: "/"}).exit
		causes := strings.Join(e.Causes, " ")
		if e.Code != c.code || e.Signal != c.signal || causes != c.cause && causes != "disk_full" {
			t.Errorf("%s: %+v", name, e)
		}
		if started := c.code != 126 && c.code != 127; started != (e.Error == "") {
			t.Errorf("%s: error %q", name, e.Error)
		}
	}
}

func TestNothingStarts(t *testing.T) {
	table := table()
	for want, spec := range map[error]Spec{
		ErrNoSuchUser: {ID: "1", Argv: []string{"true"}, User: "no-such-user"},
		ErrBadCwd:     {ID: "1", Argv: []string{"true"}, Cwd: "/etc/passwd"},
	} {
		if _, _, _, err := table.Start(spec, true); err != want {
			t.Errorf("%v, want %v", err, want)
		}
	}
	if _, err := table.Find("1"); err != ErrNoSuchJob {
		t.Error("a job that never began is known:", err)
	}
}

func TestOutputIsWhole(t *testing.T) {
	r := run(t, shell("1", "head -c 3000000 /dev/zero | tr '\\0' x; head -c 2000000 /dev/zero | tr '\\0' y >&2"))
	if r.out[Stdout].Len() != 3000000 || r.out[Stderr].Len() != 2000000 || r.gaps != 0 || r.exit.StdoutBytes != 3000000 {
		t.Errorf("%d and %d bytes, gaps %d, %+v", r.out[Stdout].Len(), r.out[Stderr].Len(), r.gaps, r.exit)
	}
}

func TestEndsWithItsLeader(t *testing.T) {
	// The child keeps stdout open until it is told to go, which is after the job's end.
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	r := run(t, shell("1", "(read line <"+fifo+") & echo leader"))
	if r.out[Stdout].String() != "leader\n" || r.exit.Code != 0 {
		t.Errorf("%q, %+v", r.out[Stdout].String(), r.exit)
	}
	if f, err := os.OpenFile(fifo, os.O_WRONLY, 0); err != nil {
		t.Error(err)
	} else {
		f.Close()
	}
}

func TestATalkativeChildDoesNotHoldTheEnd(t *testing.T) {
	r := run(t, shell("1", "(while echo x; do sleep 0.05; done) & echo $!"))
	if r.exit == nil || r.exit.Code != 0 {
		t.Fatalf("%+v", r.exit)
	}
	pid := 0
	for _, c := range strings.SplitN(strings.ReplaceAll(r.out[Stdout].String(), "x\n", ""), "\n", 2)[0] {
		pid = pid*10 + int(c-'0')
	}
	if pid <= 1 || syscall.Kill(pid, syscall.SIGKILL) != nil {
		t.Error("the child was not alive:", pid)
	}
}

func TestTimeoutKillsTheGroup(t *testing.T) {
	for name, script := range map[string]string{
		"leader ignores TERM": "trap '' TERM; echo on; while :; do sleep 1; done",
		"child ignores TERM":  "(trap '' TERM; echo on; exec sleep 1000) & sleep 1000",
	} {
		spec := shell("1", script)
		spec.Timeout, spec.Grace = 300*time.Millisecond, 50*time.Millisecond
		e := run(t, spec)
		if e.exit.Code != 124 || !e.exit.TimedOut || e.exit.Causes[0] != "timeout" || e.out[Stdout].String() != "on\n" {
			t.Errorf("%s: %+v, %q", name, e.exit, e.out[Stdout].String())
		}
	}
}

func TestStdinByCredit(t *testing.T) {
	const total = 5 << 20
	_, c, _, err := table().Start(Spec{ID: "1", Argv: []string{"cat"}, Cwd: "/", Stdin: true}, true)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Detach()
	data := bytes.Repeat([]byte("0123456789abcdef"), total/16)
	credit, _ := c.Input()
	sent, got := 0, 0
	buf := make([]byte, 32<<10)
	for {
		for credit > 0 && sent < total {
			n := min(credit, total-sent, 50000)
			if err := c.Stdin(data[sent : sent+n]); err != nil {
				t.Fatal(err)
			}
			sent, credit = sent+n, credit-n
			if sent == total {
				c.StdinEOF()
			}
		}
		switch e := c.Next(buf); e.Kind {
		case Granted:
			credit += e.Size
		case Output:
			if !bytes.Equal(buf[:e.Size], data[got:got+e.Size]) {
				t.Fatal("bytes differ at", got)
			}
			got += e.Size
		case Ended:
			if got != total || e.Exit.Code != 0 {
				t.Fatal(got, e.Exit)
			}
			return
		}
	}
}

func TestInputBeyondTheCreditIsRefused(t *testing.T) {
	j, c, _, err := table().Start(Spec{ID: "1", Argv: []string{"cat"}, Cwd: "/", Stdin: true}, true)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Stdin(make([]byte, stdinWindow+1)); err != ErrCredit {
		t.Error(err)
	}
	j.Signal(syscall.SIGKILL, false)
	(&result{}).follow(c, [2]uint64{})
}

func TestInputNobodyReadsIsGivenBack(t *testing.T) {
	spec := shell("1", "exec <&-; echo closed; exec sleep 1000")
	spec.Stdin = true
	j, c, _, err := table().Start(spec, true)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Detach()
	defer time.AfterFunc(20*time.Second, c.Cancel).Stop()
	defer j.Signal(syscall.SIGKILL, false)
	buf := make([]byte, 100)
	if e := c.Next(buf); e.Kind != Output || string(buf[:e.Size]) != "closed\n" {
		t.Fatalf("%+v", e)
	}
	credit, _ := c.Input()
	for sent := 0; sent < 4*stdinWindow; {
		for credit > 0 {
			n := min(credit, 50000)
			if err := c.Stdin(make([]byte, n)); err != nil {
				t.Fatal(err)
			}
			sent, credit = sent+n, credit-n
		}
		e := c.Next(buf)
		if e.Kind != Granted {
			t.Fatalf("after %d bytes: %+v", sent, e)
		}
		credit += e.Size
	}
}

func TestTerminal(t *testing.T) {
	spec := shell("1", "stty size; echo $TERM; test -t 0 && test -t 1 && test -t 2; echo $?")
	spec.Terminal = &Terminal{Rows: 33, Columns: 77, Term: "vt100"}
	if got := run(t, spec).out[Stdout].String(); got != "33 77\r\nvt100\r\n0\r\n" {
		t.Errorf("%q", got)
	}
}

func TestDetachedOutputKeepsTheNewest(t *testing.T) {
	table := table()
	spec := shell("1", "head -c 100000 /dev/zero | tr '\\0' a; head -c 20000 /dev/zero | tr '\\0' b")
	spec.Buffer = 32 << 10
	j, c, _, err := table.Start(spec, false)
	if err != nil || c != nil {
		t.Fatal(c, err)
	}
	for range 2 { // the second time is after the end, and again the same
		r := &result{}
		r.follow(j.Attach([2]uint64{}), [2]uint64{})
		kept := r.out[Stdout].String()
		if !strings.HasSuffix(kept, strings.Repeat("b", 20000)) || uint64(len(kept))+r.gaps != 120000 {
			t.Errorf("%d bytes kept, gap of %d", len(kept), r.gaps)
		}
		if r.exit.StdoutBytes != 120000 || r.exit.StdoutDropped > r.gaps {
			t.Errorf("%+v", r.exit)
		}
	}
	if err := table.Forget("1"); err != nil {
		t.Error(err)
	}
	if _, err := table.Find("1"); err != ErrNoSuchJob {
		t.Error(err)
	}
}

func TestLosingTheClientDoesNotEndTheJob(t *testing.T) {
	spec := shell("1", "echo one; read line; echo two; head -c 3000000 /dev/zero; exit 9")
	spec.Stdin = true
	j, c, _, err := table().Start(spec, true)
	if err != nil {
		t.Fatal(err)
	}
	first := &result{}
	first.onOut = c.Cancel
	first.follow(c, [2]uint64{})
	if first.out[Stdout].String() != "one\n" || first.exit != nil {
		t.Fatalf("%q %+v", first.out[Stdout].String(), first.exit)
	}
	again := j.Attach([2]uint64{4, 0})
	if err := again.Stdin([]byte("go\n")); err != nil {
		t.Fatal(err)
	}
	second := &result{}
	second.follow(again, [2]uint64{4, 0})
	if !strings.HasPrefix(second.out[Stdout].String(), "two\n") || second.exit.Code != 9 || second.gaps != 0 {
		t.Errorf("%d bytes, gap %d, %+v", second.out[Stdout].Len(), second.gaps, second.exit)
	}
}

func TestAtMostOnce(t *testing.T) {
	table := table()
	file := filepath.Join(t.TempDir(), "runs")
	spec := shell("1", "echo run >>"+file)
	var starts atomic.Int32
	done := make(chan *Exit)
	for range 8 {
		go func() {
			_, c, started, err := table.Start(spec, true)
			if err != nil {
				t.Error(err)
			}
			if started {
				starts.Add(1)
			}
			r := &result{}
			r.follow(c, [2]uint64{})
			done <- r.exit
		}()
	}
	for range 8 {
		if e := <-done; e.Code != 0 {
			t.Error(e)
		}
	}
	if data, _ := os.ReadFile(file); string(data) != "run\n" || starts.Load() != 1 {
		t.Errorf("%q, %d starts", data, starts.Load())
	}
}

func TestEndedJobsAreBounded(t *testing.T) {
	table := table()
	for i := range maxEnded + 3 {
		_, c, _, err := table.Start(Spec{ID: string(rune(0x1000 + i)), Argv: []string{"no-such-program"}, Cwd: "/"}, true)
		if err != nil {
			t.Fatal(err)
		}
		(&result{}).follow(c, [2]uint64{})
	}
	if n := len(table.All()); n != maxEnded {
		t.Error(n, "jobs are known")
	}
}

func TestTooManyJobs(t *testing.T) {
	table := table()
	var jobs []*Job
	for i := range maxRunning {
		spec := Spec{ID: string(rune(0x1000 + i)), Argv: []string{"cat"}, Cwd: "/", Stdin: true}
		j, _, _, err := table.Start(spec, false)
		if err != nil {
			t.Fatal(i, err)
		}
		jobs = append(jobs, j)
	}
	if _, _, _, err := table.Start(shell("x", "true"), false); err != ErrTooMany {
		t.Error(err)
	}
	for _, j := range jobs {
		c := j.Attach([2]uint64{})
		c.StdinEOF()
		r := &result{}
		if r.follow(c, [2]uint64{}); r.exit.Code != 0 {
			t.Error(r.exit)
		}
	}
}

func TestRunsAsANamedUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can become another user")
	}
	if _, err := user.Lookup("nobody"); err != nil {
		t.Skip("this system has no nobody")
	}
	spec := shell("1", "id -un; echo $USER $LOGNAME")
	spec.User = "nobody"
	if got := run(t, spec).out[Stdout].String(); got != "nobody\nnobody nobody\n" {
		t.Errorf("%q", got)
	}
}
