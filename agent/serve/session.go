package serve

import (
	"encoding/binary"
	"encoding/json"
	"sync/atomic"
	"syscall"

	"pyro.dev/agent/files"
	"pyro.dev/agent/job"
	"pyro.dev/agent/listen"
	"pyro.dev/agent/tunnel"
	"pyro.dev/agent/wire"
)

const (
	// outputSize keeps a whole frame of output within one write of a virtio-serial port (32 KiB).
	outputSize = 32<<10 - wire.HeaderSize - offsetSize - wire.TrailerSize
	offsetSize = 8
)

// session is what one HELLO began. Its goroutine reads; while an operation streams, only that one writes.
type session struct {
	server  *Server
	channel listen.Channel
	reader  *wire.Reader
	id      uint32
	out     []byte // the frame being written
	op      *operation
	stage   *files.Stage // of the push that is open on this session
}

// operation streams a job, files, or connections, to the session's client; one of the three is not nil.
type operation struct {
	client   *job.Client
	walk     *files.Walk
	tunnel   *tunnel.Tunnel
	ending   atomic.Bool // the last frame is about to be written: another request may come
	finished chan struct{}
}

// stop makes the stream end soon.
func (op *operation) stop() {
	switch {
	case op.client != nil:
		op.client.Cancel()
	case op.walk != nil:
		op.walk.Stop()
	default:
		op.tunnel.Stop()
		go func() {
			op.tunnel.Wait()
			close(op.finished)
		}()
	}
}

// run reads frames until the session ends.
func (s *session) run() error {
	for {
		frame, err := s.reader.ReadFrame(s.id)
		if err != nil {
			return err
		}
		if err := s.handle(frame); err != nil {
			return err
		}
	}
}

func (s *session) handle(frame wire.Frame) error {
	if frame.Type == wire.Request {
		return s.request(frame.Payload)
	}
	if frame.Type >= wire.Response {
		return wire.BadType // ours to send, not to get
	}
	if frame.Type == wire.Push {
		return s.push(frame.Payload)
	}
	if frame.Type == wire.TunnelIn {
		return s.toTunnel(frame.Payload)
	}
	if s.op == nil || s.op.client == nil {
		return nil // meant for an operation that has just ended
	}
	client, p := s.op.client, frame.Payload
	switch {
	case frame.Type == wire.Stdin:
		if client.Stdin(p) != nil {
			return wire.BadLength // input beyond the credit
		}
	case frame.Type == wire.StdinEOF && len(p) == 0:
		client.StdinEOF()
	case frame.Type == wire.Signal && len(p) == 4:
		if number := binary.BigEndian.Uint32(p); number >= 1 && number <= maxSignal {
			client.Signal(syscall.Signal(number))
		}
	case frame.Type == wire.Resize && len(p) == 4:
		client.Resize(binary.BigEndian.Uint16(p), binary.BigEndian.Uint16(p[2:]))
	default:
		return wire.BadLength
	}
	return nil
}

// request answers a REQUEST, or starts streaming.
func (s *session) request(payload []byte) error {
	if !s.settled() {
		s.endStream()
		return s.send(wire.Error, &failure{"busy", "an operation is still running on this session"})
	}
	var r request
	if err := json.Unmarshal(payload, &r); err != nil {
		return s.send(wire.Error, &failure{"bad_request", err.Error()})
	}
	if transfers(r.Op) || s.stage != nil {
		return s.transfer(&r)
	}
	if r.Op == "tunnel" {
		return s.tunnel(&r)
	}
	answer, client, err := s.server.perform(&r)
	if err != nil {
		return s.send(wire.Error, asFailure(err))
	}
	err = s.send(wire.Response, answer)
	switch {
	case r.Op == "poweroff":
		s.server.PowerOff() // even when nobody waits for the answer
	case client != nil && err != nil:
		client.Detach()
	case client != nil:
		s.op = &operation{client: client, finished: make(chan struct{})}
		go s.stream(s.op)
	}
	return err
}

// settled says whether no stream runs (any more).
func (s *session) settled() bool {
	if s.op == nil {
		return true
	}
	if !s.op.ending.Load() {
		return false
	}
	<-s.op.finished
	s.op = nil
	return true
}

// endStream takes the session's client from what streams to it; afterwards nothing of the session writes.
func (s *session) endStream() {
	if s.op == nil {
		return
	}
	s.op.stop()
	s.channel.Interrupt()
	<-s.op.finished
	s.channel.Resume()
	s.op = nil
}

// abandon ends all that needs the session's client: its stream, and its push that was not switched in.
func (s *session) abandon() {
	s.endStream()
	s.abort()
}

// stream writes the job's output until its end, or until the client is lost.
func (s *session) stream(op *operation) {
	defer close(op.finished)
	defer op.client.Detach()
	if cap(s.out) < outputSize+wire.HeaderSize+offsetSize+wire.TrailerSize {
		s.out = make([]byte, 0, 32<<10)
	}
	const head = wire.HeaderSize + offsetSize
	for {
		event := op.client.Next(s.out[head : head+outputSize])
		var err error
		switch event.Kind {
		case job.Lost:
			return
		case job.Ended:
			op.ending.Store(true)
			s.send(wire.Exit, event.Exit)
			return
		case job.Granted:
			s.out = wire.AppendHeader(s.out[:0], s.id, wire.Credit)
			s.out = binary.BigEndian.AppendUint32(s.out, uint32(event.Size))
			err = s.flush()
		case job.Output:
			kind := wire.Stdout + wire.Type(event.Stream)
			s.out = wire.AppendHeader(s.out[:0], s.id, kind)
			s.out = binary.BigEndian.AppendUint64(s.out, event.Offset)
			s.out = s.out[:head+event.Size]
			err = s.flush()
		}
		if err != nil {
			return
		}
	}
}

// send writes a frame with a JSON object.
func (s *session) send(kind wire.Type, object any) error {
	payload, err := json.Marshal(object)
	if err != nil || len(payload) > wire.MaxPayload {
		kind, payload = wire.Error, []byte(`{"code":"internal","message":"the answer cannot be encoded"}`)
	}
	s.out = append(wire.AppendHeader(s.out[:0], s.id, kind), payload...)
	return s.flush()
}

// flush ends the frame in out and writes it.
func (s *session) flush() error {
	s.out = wire.Finish(s.out, 0)
	_, err := s.channel.Write(s.out)
	return err
}
