// Package serve answers the protocol of docs/protocol.md on channels.
package serve

import (
	"errors"
	"sync/atomic"

	"pyro.dev/agent/files"
	"pyro.dev/agent/job"
	"pyro.dev/agent/listen"
	"pyro.dev/agent/tunnel"
	"pyro.dev/agent/wire"
)

// Server is what all sessions share.
type Server struct {
	Version string
	BootMs  map[string]int64
	Jobs    *job.Table // nil: only files are served
	Files   *files.Store
	Tunnels *tunnel.Table // nil, too, where only files are served
	// PowerOff ends the machine. It is called once the answer is on its way.
	PowerOff func()

	configured atomic.Bool
}

// Serve answers one channel until it is of no more use: one session after the other.
func (s *Server) Serve(channel listen.Channel) {
	defer channel.Close()
	reader := wire.NewReader(channel)
	for {
		hello, err := reader.ReadHello()
		if err == nil {
			err = s.welcome(channel, hello)
		}
		if err == nil && hello.Generation == wire.Generation {
			session := &session{server: s, channel: channel, reader: reader, id: hello.Session}
			err = session.run()
			session.abandon()
		}
		var invalid wire.Fault
		switch {
		case err == nil, errors.As(err, &invalid):
			continue // the next HELLO may already be there
		case channel.Reusable() && errors.Is(err, listen.ErrClientLeft):
			reader.Reset() // half a frame of a client that left is nobody's
		default:
			return
		}
	}
}

func (s *Server) welcome(channel listen.Channel, hello wire.Hello) error {
	hello.Generation = wire.Generation
	_, err := channel.Write(wire.AppendWelcome(nil, hello))
	return err
}
