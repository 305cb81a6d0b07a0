package serve

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"pyro.dev/agent/account"
	"pyro.dev/agent/job"
	"pyro.dev/agent/listen"
	"pyro.dev/agent/reap"
	"pyro.dev/agent/wire"
)

var reaper = reap.New()

// host is the other side of a session, over a real socket.
type host struct {
	t       *testing.T
	conn    *os.File
	reader  *wire.Reader
	session uint32
	out     [2]bytes.Buffer
}

func newServer() *Server {
	s := &Server{Version: "test", Jobs: job.NewTable(reaper, nil, account.System), PowerOff: func() {}}
	s.configured.Store(true)
	return s
}

// connect serves one end of a socket pair and says HELLO on the other. The channel is reusable like a serial port's,
// as far as a socket can be.
func connect(t *testing.T, s *Server) *host {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		s.Serve(listen.NewSocket(fds[0]))
		close(served)
	}()
	h := &host{t: t, conn: os.NewFile(uintptr(fds[1]), "host")}
	h.conn.SetDeadline(time.Now().Add(time.Minute))
	t.Cleanup(func() {
		h.conn.Close()
		<-served
	})
	h.hello(7)
	return h
}

func (h *host) hello(session uint32) (seen []byte) {
	h.t.Helper()
	h.session = session
	hello := wire.Hello{Generation: 1, Session: session, Nonce: [16]byte{byte(session)}}
	h.write(wire.AppendHello(nil, hello))
	return h.welcome(hello)
}

// welcome drops bytes until the WELCOME, as hosts do; they are returned.
func (h *host) welcome(want wire.Hello) (seen []byte) {
	h.t.Helper()
	one := make([]byte, 1)
	for !bytes.HasSuffix(seen, wire.AppendWelcome(nil, want)) {
		if _, err := h.conn.Read(one); err != nil {
			h.t.Fatal(err)
		}
		seen = append(seen, one...)
	}
	h.reader = wire.NewReader(h.conn)
	return seen
}

func (h *host) write(p []byte) {
	h.t.Helper()
	if _, err := h.conn.Write(p); err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) send(kind wire.Type, payload []byte) {
	h.t.Helper()
	h.write(wire.AppendFrame(nil, h.session, kind, payload))
}

func (h *host) receive() wire.Frame {
	h.t.Helper()
	f, err := h.reader.ReadFrame(h.session)
	if err != nil {
		h.t.Fatal(err)
	}
	return f
}

type object = map[string]any

// ask sends a request and returns the answer, or the ERROR's code.
func (h *host) ask(r object) (answer object, code string) {
	h.t.Helper()
	data, err := json.Marshal(r)
	if err != nil {
		h.t.Fatal(err)
	}
	h.send(wire.Request, data)
	return h.answer()
}

func (h *host) answer() (answer object, code string) {
	h.t.Helper()
	f := h.receive()
	if err := json.Unmarshal(f.Payload, &answer); err != nil {
		h.t.Fatal(f.Type, err)
	}
	if f.Type == wire.Error {
		return nil, answer["code"].(string)
	}
	if f.Type != wire.Response {
		h.t.Fatal("answered with frame", f.Type)
	}
	return answer, ""
}

func shell(id int, script string) object {
	return object{"op": "exec", "job": fmt.Sprintf("%016x", id), "argv": [][]byte{[]byte("sh"), []byte("-c"), []byte(script)}, "cwd": []byte("/")}
}

// follow collects the output until EXIT.
func (h *host) follow() (exit job.Exit) {
	h.t.Helper()
	for {
		switch f := h.receive(); f.Type {
		case wire.Stdout, wire.Stderr:
			h.out[f.Type-wire.Stdout].Write(f.Payload[8:])
		case wire.Exit:
			if err := json.Unmarshal(f.Payload, &exit); err != nil {
				h.t.Fatal(err)
			}
			return exit
		case wire.Credit:
		default:
			h.t.Fatal("frame", f.Type)
		}
	}
}

func TestExec(t *testing.T) {
	h := connect(t, newServer())
	for i := range 3 { // one operation after the other on one session
		answer, code := h.ask(shell(i, fmt.Sprintf("echo out; echo err >&2; exit %d", i)))
		if code != "" || answer["started"] != true || answer["pid"].(float64) < 2 {
			t.Fatal(answer, code)
		}
		if exit := h.follow(); exit.Code != i {
			t.Error(exit)
		}
	}
	if h.out[0].String() != "out\nout\nout\n" || h.out[1].String() != "err\nerr\nerr\n" {
		t.Errorf("%q %q", h.out[0].String(), h.out[1].String())
	}
}

func TestErrors(t *testing.T) {
	h := connect(t, newServer())
	with := func(key string, value any) object {
		r := shell(1, "true")
		r[key] = value
		return r
	}
	for _, c := range []struct {
		request object
		code    string
	}{
		{object{"op": "dance"}, "unknown_op"},
		{object{"op": 5}, "bad_request"},
		{with("job", "xyz"), "bad_request"},
		{with("argv", [][]byte{}), "bad_request"},
		{with("argv", [][]byte{[]byte("a\x00b")}), "bad_request"},
		{with("env", [][]byte{[]byte("=x")}), "bad_request"},
		{with("timeout_ms", -1), "bad_request"},
		{with("cwd", []byte("/no/such/dir")), "bad_cwd"},
		{with("user", "no-such-user"), "no_such_user"},
		{object{"op": "attach", "job": "0000000000000001"}, "no_such_job"},
		{object{"op": "signal", "job": "0000000000000001", "signal": 15}, "no_such_job"},
		{object{"op": "signal", "job": "0000000000000001", "signal": 999}, "bad_request"},
		{object{"op": "forget", "job": "0000000000000001"}, "no_such_job"},
		{object{"op": "configure", "hostname": "a b"}, "bad_request"},
	} {
		if _, code := h.ask(c.request); code != c.code {
			t.Errorf("%v: %q, want %q", c.request, code, c.code)
		}
	}
	h.send(wire.Request, []byte("{"))
	if _, code := h.answer(); code != "bad_request" {
		t.Error(code)
	}
}

func TestExecNeedsConfigure(t *testing.T) {
	s := newServer()
	s.configured.Store(false)
	h := connect(t, s)
	if _, code := h.ask(shell(1, "true")); code != "not_configured" {
		t.Error(code)
	}
	if answer, _ := h.ask(object{"op": "info"}); answer["configured"] != false || answer["generation"] != 1.0 {
		t.Error(answer)
	}
}

func TestAnotherGenerationIsWelcomedAndDropped(t *testing.T) {
	h := connect(t, newServer())
	later := wire.Hello{Generation: 2, Session: 8, Nonce: [16]byte{8}}
	h.write(wire.AppendHello(nil, later))
	later.Generation = 1
	h.welcome(later)
	h.session = 8
	h.send(wire.Request, []byte(`{"op":"info"}`)) // is scanned over
	h.hello(9)
	if _, code := h.ask(object{"op": "info"}); code != "" {
		t.Error(code)
	}
}

func TestSignalsAndStdinWhileStreaming(t *testing.T) {
	h := connect(t, newServer())
	r := shell(1, "trap 'echo usr1; exit 3' USR1; echo ready; while read line; do echo $line; done; sleep 1000 & wait")
	r["stdin"] = true
	if answer, _ := h.ask(r); answer["stdin_credit"] != 262144.0 {
		t.Fatal(answer)
	}
	expect := func(want string) {
		t.Helper()
		for h.out[0].String() != want {
			f := h.receive()
			if f.Type != wire.Stdout || binary.BigEndian.Uint64(f.Payload) != uint64(h.out[0].Len()) {
				t.Fatalf("%d %q", f.Type, f.Payload)
			}
			h.out[0].Write(f.Payload[8:])
		}
	}
	expect("ready\n")
	h.send(wire.Stdin, []byte("hello\n"))
	expect("ready\nhello\n")
	h.send(wire.StdinEOF, nil)
	h.send(wire.Signal, binary.BigEndian.AppendUint32(nil, uint32(syscall.SIGUSR1)))
	// The whole group gets the signal, so the sleep dies too.
	if exit := h.follow(); exit.Code != 3 && exit.Signal != int(syscall.SIGUSR1) {
		t.Error(exit)
	}
}

// endless begins a job that writes until it is killed, and reads its first output.
func endless(h *host, id int) {
	h.t.Helper()
	if _, code := h.ask(shell(id, "exec yes")); code != "" {
		h.t.Fatal(code)
	}
	if f := h.receive(); f.Type != wire.Stdout {
		h.t.Fatal(f.Type)
	}
}

func end(h *host, id int) {
	h.t.Helper()
	name := fmt.Sprintf("%016x", id)
	if answer, code := h.ask(object{"op": "signal", "job": name, "signal": 9, "scope": "all"}); answer["delivered"] != true {
		h.t.Fatal(answer, code)
	}
	if answer, code := h.ask(object{"op": "attach", "job": name}); answer["started"] != false {
		h.t.Fatal(answer, code)
	}
	if exit := h.follow(); exit.Signal != 9 {
		h.t.Error(exit)
	}
}

func TestAHelloWhileStreamingDetaches(t *testing.T) {
	h := connect(t, newServer())
	endless(h, 1)
	h.hello(8) // with the pipe full of the old session's output
	answer, _ := h.ask(object{"op": "jobs"})
	if jobs := answer["jobs"].([]any); len(jobs) != 1 || jobs[0].(object)["running"] != true {
		t.Fatal(answer)
	}
	if _, code := h.ask(object{"op": "forget", "job": "0000000000000001"}); code != "busy" {
		t.Error(code)
	}
	end(h, 1)
}

func TestABrokenFrameDetaches(t *testing.T) {
	for name, broken := range map[string][]byte{
		"half a frame and pad":  append(wire.AppendFrame(nil, 7, wire.Stdin, make([]byte, 5000))[:2000], make([]byte, 262208)...),
		"a frame of the guest":  wire.AppendFrame(nil, 7, wire.Exit, nil),
		"a short signal":        wire.AppendFrame(nil, 7, wire.Signal, []byte{1}),
		"another's session":     wire.AppendFrame(nil, 6, wire.StdinEOF, nil),
		"eof that carries more": wire.AppendFrame(nil, 7, wire.StdinEOF, []byte{1}),
	} {
		t.Run(name, func(t *testing.T) {
			h := connect(t, newServer())
			endless(h, 1)
			h.write(broken)
			h.hello(8)
			end(h, 1)
		})
	}
}

func TestARequestWhileStreamingIsBusy(t *testing.T) {
	h := connect(t, newServer())
	endless(h, 1)
	h.send(wire.Request, []byte(`{"op":"info"}`))
	for {
		f := h.receive()
		if f.Type == wire.Error {
			if !strings.Contains(string(f.Payload), `"busy"`) {
				t.Errorf("%s", f.Payload)
			}
			break
		}
	}
	end(h, 1)
}

func TestAJobOutlivesItsConnection(t *testing.T) {
	s := newServer()
	first := connect(t, s)
	endless(first, 1)
	first.conn.Close()
	end(connect(t, s), 1)
}
