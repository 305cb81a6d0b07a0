package job

import (
	"strings"
	"sync/atomic"
	"testing"

	"pyro.dev/agent/account"
)

func TestEnvironment(t *testing.T) {
	who := account.Account{Name: "dev", Home: "/home/dev", Shell: "/bin/zsh"}
	spec := Spec{Env: []string{"HOME=/x", "A=1", "A=2", "B=", "N=mine"}, Terminal: &Terminal{Term: "xterm"}}
	got := strings.Join(environment(spec, who, []string{"M=1", "N=2"}), " ")
	want := "PATH=" + defaultPath + " HOME=/x USER=dev LOGNAME=dev SHELL=/bin/zsh TERM=xterm M=1 N=mine A=2 B="
	if got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
}

func TestRing(t *testing.T) {
	var live atomic.Int64
	r := ring{limit: 8192, live: &live}
	if n := r.write(make([]byte, 10000), 0); n != 8192 || r.end != 8192 {
		t.Fatal(n, r.end)
	}
	if n := r.write([]byte("abc"), 0); n != 0 {
		t.Fatal("kept bytes were overwritten:", n)
	}
	if n := r.write([]byte("abc"), r.end); n != 3 || r.start != 3 {
		t.Fatal(n, r.start)
	}
	buf := make([]byte, 10)
	if n := r.read(buf, 8190); string(buf[:n]) != "\x00\x00abc" {
		t.Fatalf("%q", buf[:n])
	}
	pieces := ring{limit: 8192, live: &live}
	for range 100 {
		pieces.write(make([]byte, 100), pieces.end)
	}
	if pieces.end-pieces.start != 8192 {
		t.Fatal("small writes left only", pieces.end-pieces.start)
	}
	pieces.settle()
	r.settle()
	if live.Load() != 0 || r.read(buf, 8192) != 3 {
		t.Fatal(live.Load())
	}
	small := ring{limit: MaxBuffer, live: &live}
	live.Store(liveBudget)
	if n := small.write(make([]byte, 100000), 0); n != minBuffer {
		t.Fatal("beyond the budget a stream may hold", n)
	}
}
