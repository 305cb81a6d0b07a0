package serve

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"io"
	"net"
	"testing"

	"pyro.dev/agent/tunnel"
	"pyro.dev/agent/wire"
)

// program listens on a port of 127.0.0.1 and serves each connection with handle; the port.
func program(t *testing.T, handle func(*net.TCPConn)) uint16 {
	t.Helper()
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return serve(t, listener, handle)
}

func serve(t *testing.T, listener net.Listener, handle func(*net.TCPConn)) uint16 {
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go handle(conn.(*net.TCPConn))
		}
	}()
	return uint16(listener.Addr().(*net.TCPAddr).Port)
}

func echo(conn *net.TCPConn) {
	io.Copy(conn, conn)
	conn.Close()
}

// openTunnel connects a host that has a tunnel with the given credit for each stream.
func openTunnel(t *testing.T, window int) *host {
	t.Helper()
	server := newServer()
	server.Tunnels = &tunnel.Table{}
	h := connect(t, server)
	answer, code := h.ask(object{"op": "tunnel", "window": window})
	if code != "" || answer["window"].(float64) != tunnel.Window || answer["streams"].(float64) != tunnel.StreamsMost {
		t.Fatal(answer, code)
	}
	return h
}

func (h *host) tunnelSend(id uint32, kind tunnel.Kind, body ...byte) {
	h.t.Helper()
	payload := append(binary.BigEndian.AppendUint32(nil, id), byte(kind))
	h.send(wire.TunnelIn, append(payload, body...))
}

func (h *host) open(id uint32, port uint16) {
	h.t.Helper()
	h.tunnelSend(id, tunnel.Open, binary.BigEndian.AppendUint16(nil, port)...)
}

func (h *host) tunnelReceive() (id uint32, kind tunnel.Kind, body []byte) {
	h.t.Helper()
	f := h.receive()
	if f.Type != wire.TunnelOut || len(f.Payload) < tunnel.HeadSize {
		h.t.Fatal("got frame", f.Type, f.Payload)
	}
	return binary.BigEndian.Uint32(f.Payload), tunnel.Kind(f.Payload[4]), f.Payload[tunnel.HeadSize:]
}

// collect gives back credit for what comes until the stream is closed.
func (h *host) collect(id uint32) (data []byte, ended bool, reason tunnel.Reason) {
	h.t.Helper()
	for {
		from, kind, body := h.tunnelReceive()
		if from != id {
			h.t.Fatal("frame of stream", from)
		}
		switch kind {
		case tunnel.Data:
			data = append(data, body...)
			h.tunnelSend(id, tunnel.Credit, binary.BigEndian.AppendUint32(nil, uint32(len(body)))...)
		case tunnel.End:
			ended = true
		case tunnel.Closed:
			return data, ended, tunnel.Reason(body[0])
		}
	}
}

func TestTunnelCarriesBothDirectionsAndTheirEnds(t *testing.T) {
	h := openTunnel(t, 1000)
	h.open(1, program(t, echo))
	h.tunnelSend(1, tunnel.Data, []byte("hello ")...)
	h.tunnelSend(1, tunnel.Data, []byte("guest")...)
	h.tunnelSend(1, tunnel.End)
	if data, ended, reason := h.collect(1); string(data) != "hello guest" || !ended || reason != tunnel.Ended {
		t.Fatalf("%q %v %v", data, ended, reason)
	}
}

func TestTunnelKeepsEachStreamWithinItsCredit(t *testing.T) {
	h := openTunnel(t, 1000)
	flood := program(t, func(c *net.TCPConn) { c.Write(make([]byte, 5000)); c.Close() })
	h.open(1, flood)
	for got := 0; got < 1000; {
		_, kind, body := h.tunnelReceive()
		if got += len(body); kind != tunnel.Data || got > 1000 {
			t.Fatal(kind, got)
		}
	}
	// The first stands still; the second is served all the same.
	h.open(2, program(t, echo))
	h.tunnelSend(2, tunnel.Data, 'x')
	h.tunnelSend(2, tunnel.End)
	if data, _, reason := h.collect(2); string(data) != "x" || reason != tunnel.Ended {
		t.Fatal(data, reason)
	}
	h.tunnelSend(1, tunnel.Credit, 0, 0, 16, 0)
	h.tunnelSend(1, tunnel.End)
	if data, ended, reason := h.collect(1); len(data) != 4000 || !ended || reason != tunnel.Ended {
		t.Fatal(len(data), ended, reason)
	}
}

func TestTunnelGivesCreditBackAsAProgramReads(t *testing.T) {
	h := openTunnel(t, 1<<20)
	sent := make([]byte, 1<<20)
	rand.Read(sent)
	received := make(chan []byte, 1)
	h.open(1, program(t, func(c *net.TCPConn) {
		data, _ := io.ReadAll(c)
		received <- data
		c.Close()
	}))
	rest, window := sent, tunnel.Window
	for len(rest) > 0 {
		if n := min(len(rest), window, 30_000); n > 0 {
			h.tunnelSend(1, tunnel.Data, rest[:n]...)
			rest, window = rest[n:], window-n
			continue
		}
		_, kind, body := h.tunnelReceive()
		if kind != tunnel.Credit {
			t.Fatal(kind)
		}
		window += int(binary.BigEndian.Uint32(body))
	}
	h.tunnelSend(1, tunnel.End)
	if _, _, reason := h.collect(1); reason != tunnel.Ended || !bytes.Equal(<-received, sent) {
		t.Fatal("what came is not what was sent", reason)
	}
}

func TestTunnelTellsWhyAStreamIsClosed(t *testing.T) {
	h := openTunnel(t, 1000)
	unused := program(t, echo)
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := uint16(listener.Addr().(*net.TCPAddr).Port)
	listener.Close()
	h.open(1, nobody)
	if _, _, reason := h.collect(1); reason != tunnel.Refused {
		t.Error("nobody listens:", reason)
	}
	h.open(2, program(t, func(c *net.TCPConn) { c.SetLinger(0); c.Close() }))
	if _, _, reason := h.collect(2); reason != tunnel.Lost {
		t.Error("reset by the program:", reason)
	}
	h.open(3, unused)
	h.tunnelSend(3, tunnel.Reset)
	h.tunnelSend(3, tunnel.Data, 'x') // it was under way
	if _, _, reason := h.collect(3); reason != tunnel.Lost {
		t.Error("reset by the host:", reason)
	}
	if six, err := net.Listen("tcp6", "[::1]:0"); err == nil { // a kernel without IPv6 has no such program
		h.open(4, serve(t, six, echo))
		h.tunnelSend(4, tunnel.End)
		if _, _, reason := h.collect(4); reason != tunnel.Ended {
			t.Error("a program that knows only IPv6:", reason)
		}
	}
	for id := uint32(5); id < 5+tunnel.StreamsMost; id++ {
		h.open(id, unused)
	}
	h.open(500, unused)
	if _, _, reason := h.collect(500); reason != tunnel.TooMany {
		t.Error("one too many:", reason)
	}
}

func TestTunnelEndsASessionThatBreaksItsRules(t *testing.T) {
	port := program(t, func(c *net.TCPConn) { io.Copy(io.Discard, c) })
	for name, send := range map[string]func(*host){
		"short":         func(h *host) { h.send(wire.TunnelIn, []byte{0, 0, 0, 1}) },
		"port 0":        func(h *host) { h.open(1, 0) },
		"id again":      func(h *host) { h.open(1, port); h.open(1, port) },
		"unknown id":    func(h *host) { h.tunnelSend(1, tunnel.End) },
		"unknown kind":  func(h *host) { h.open(1, port); h.tunnelSend(1, 9) },
		"guest's kind":  func(h *host) { h.open(1, port); h.tunnelSend(1, tunnel.Closed, 0) },
		"empty data":    func(h *host) { h.open(1, port); h.tunnelSend(1, tunnel.Data) },
		"data at end":   func(h *host) { h.open(1, port); h.tunnelSend(1, tunnel.End); h.tunnelSend(1, tunnel.Data, 'x') },
		"beyond credit": func(h *host) { h.open(1, port); h.tunnelSend(1, tunnel.Data, make([]byte, tunnel.Window+1)...) },
		"endless credit": func(h *host) {
			h.open(1, port)
			h.tunnelSend(1, tunnel.Credit, 0x7f, 0xff, 0xff, 0xff)
		},
	} {
		h := openTunnel(t, 1000)
		send(h)
		h.send(wire.Request, []byte(`{"op":"info"}`)) // in a tunnel that goes on this is busy
		if seen := h.hello(8); bytes.Contains(seen, []byte("busy")) {
			t.Errorf("%s: the session goes on", name)
		}
		if _, code := h.ask(object{"op": "info"}); code != "" {
			t.Errorf("%s: the next session does not work: %s", name, code)
		}
	}
}

func TestTunnelIsBusyAndOnlyThere(t *testing.T) {
	h := openTunnel(t, 1000)
	h.open(1, program(t, echo))
	if _, code := h.ask(object{"op": "info"}); code != "busy" {
		t.Error("a request in a tunnel:", code)
	}
	if _, code := h.ask(object{"op": "tunnel", "window": 0}); code != "bad_request" {
		t.Error("no window:", code)
	}
	if _, code := connect(t, newServer()).ask(object{"op": "tunnel", "window": 1}); code != "unknown_op" {
		t.Error("where only files are served:", code)
	}
}
