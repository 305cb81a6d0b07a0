package resolve

import (
	"errors"
	"net"
	"slices"
	"time"
)

const (
	pinnedTTL     = 60
	maxQuery      = 4096
	maxForwards   = 64 // questions under way at once; further ones get no answer, and are asked again
	maxStreams    = 16
	maxPerStream  = 256
	streamTime    = 10 * time.Second // for the next question of a connection
	troubleTime   = 100 * time.Millisecond
	maxTroubles   = 50 // errors of a socket in a row
	streamMessage = maxMessage
)

type resolver struct {
	config   Config
	stats    *stats
	forwards chan struct{}
}

// Serve answers what comes over both sockets, until one of them is closed or breaks.
func Serve(config Config, udp net.PacketConn, tcp net.Listener) error {
	if err := config.Check(); err != nil {
		return err
	}
	r := &resolver{config: config, stats: newStats(config.Stats), forwards: make(chan struct{}, maxForwards)}
	defer r.stats.close()
	ended := make(chan error, 2)
	go func() { ended <- r.serveUDP(udp) }()
	go func() { ended <- r.serveTCP(tcp) }()
	err := <-ended
	udp.Close()
	tcp.Close()
	<-ended
	return err
}

// answer says what a message gets; whether it gets anything.
func (r *resolver) answer(message []byte) (query, reply, bool) {
	q, code, err := parseQuery(message)
	if err != nil {
		return q, reply{}, false
	}
	if code != noError {
		return q, reply{code: code}, true
	}
	r.stats.asked()
	if q.question.class != classIN {
		r.stats.refused("")
		return q, reply{code: refused}, true
	}
	if r.config.Mode == "pinned" {
		return q, r.pinned(q.question), true
	}
	return q, r.forward(q), true
}

func (r *resolver) pinned(asked question) reply {
	addresses, known := r.config.Names[asked.name]
	if !known || asked.name == "" {
		r.stats.refused(asked.name)
		return reply{code: refused}
	}
	found := reply{code: noError}
	if asked.kind == typeA {
		for _, address := range addresses {
			found.add(address, pinnedTTL)
		}
	}
	return found
}

func (r *resolver) serveUDP(socket net.PacketConn) error {
	buffer := make([]byte, maxQuery)
	for troubles := 0; ; {
		n, from, err := socket.ReadFrom(buffer)
		if err != nil {
			troubles++
			if errors.Is(err, net.ErrClosed) || troubles > maxTroubles {
				return err
			}
			continue
		}
		troubles = 0
		select {
		case r.forwards <- struct{}{}:
		default:
			r.stats.limited()
			continue
		}
		message := slices.Clone(buffer[:n])
		go func() {
			defer func() { <-r.forwards }()
			if q, found, any := r.answer(message); any {
				_, _ = socket.WriteTo(found.encode(q, q.size), from) // who does not get it asks again
			}
		}()
	}
}

func (r *resolver) serveTCP(listener net.Listener) error {
	streams := make(chan struct{}, maxStreams)
	for troubles := 0; ; {
		streams <- struct{}{}
		conn, err := listener.Accept()
		if err != nil {
			<-streams
			troubles++
			if errors.Is(err, net.ErrClosed) || troubles > maxTroubles {
				return err
			}
			time.Sleep(troubleTime)
			continue
		}
		troubles = 0
		go func() {
			defer func() { <-streams }()
			defer conn.Close()
			r.serveStream(conn)
		}()
	}
}

func (r *resolver) serveStream(conn net.Conn) {
	for range maxPerStream {
		if conn.SetDeadline(time.Now().Add(streamTime)) != nil {
			return
		}
		message, err := readFramed(conn, maxQuery)
		if err != nil {
			return
		}
		q, found, any := r.answer(message)
		if !any {
			return
		}
		if _, err := conn.Write(framed(found.encode(q, streamMessage))); err != nil {
			return
		}
	}
}
