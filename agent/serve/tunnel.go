package serve

import (
	"sync"

	"pyro.dev/agent/tunnel"
	"pyro.dev/agent/wire"
)

// creditMost is the most a host may take of a stream before it grants more.
const creditMost = 1 << 20

type tunnelAnswer struct {
	Window  int `json:"window"`
	Streams int `json:"streams"`
}

// tunnel answers the operation of that name. It lasts until the session, or the next request.
func (s *session) tunnel(r *request) error {
	switch {
	case s.server.Tunnels == nil:
		return s.send(wire.Error, &failure{"unknown_op", "only files are served here"})
	case r.Window < 1 || r.Window > creditMost:
		return s.send(wire.Error, badRequest("window is out of range"))
	}
	if err := s.send(wire.Response, tunnelAnswer{tunnel.Window, tunnel.StreamsMost}); err != nil {
		return err
	}
	s.op = &operation{tunnel: tunnel.New(s.server.Tunnels, r.Window, s.tunnelOut()), finished: make(chan struct{})}
	return nil
}

// tunnelOut writes frames for all streams of a tunnel, one at a time.
func (s *session) tunnelOut() tunnel.Out {
	var mu sync.Mutex
	frame := make([]byte, outputSize+wire.HeaderSize+offsetSize+wire.TrailerSize)
	space := frame[wire.HeaderSize : len(frame)-wire.TrailerSize]
	return func(fill func([]byte) int) error {
		mu.Lock()
		defer mu.Unlock()
		n := fill(space)
		if n == 0 {
			return nil
		}
		whole := wire.AppendHeader(frame[:0], s.id, wire.TunnelOut)
		_, err := s.channel.Write(wire.Finish(whole[:wire.HeaderSize+n], 0))
		return err
	}
}

// toTunnel gives a frame to the tunnel that is open.
func (s *session) toTunnel(payload []byte) error {
	if s.op == nil || s.op.tunnel == nil {
		return nil // meant for an operation that has just ended
	}
	if s.op.tunnel.Take(payload) != nil {
		return wire.BadLength
	}
	return nil
}
