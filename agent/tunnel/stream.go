package tunnel

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// dialTime is how long a program may leave a connection unanswered: its queue of them is full.
const dialTime = 10 * time.Second

// stream is one connection. The tunnel's lock guards what changes.
type stream struct {
	tunnel  *Tunnel
	id      uint32
	dialing context.Context
	cancel  context.CancelFunc
	changed sync.Cond
	conn    *net.TCPConn // nil until it is there
	queue   []byte       // of the host's data, not yet written
	ended   bool         // the host sends no more
	window  int          // what the host may still send
	credit  int          // what the host still takes
	gone    bool
}

// take carries out a frame of the host; the lock is held.
func (s *stream) take(kind Kind, body []byte) error {
	switch {
	case kind == Data && len(body) > 0 && len(body) <= s.window && !s.ended:
		s.window -= len(body)
		s.queue = append(s.queue, body...)
	case kind == End && len(body) == 0 && !s.ended:
		s.ended = true
	case kind == Credit && len(body) == 4:
		more := binary.BigEndian.Uint32(body)
		if more > creditMost || s.credit > creditMost {
			return ErrMalformed
		}
		s.credit += int(more)
	case kind == Reset && len(body) == 0:
		s.abort()
	default:
		return ErrMalformed
	}
	s.changed.Broadcast()
	return nil
}

// abort ends all waiting of the stream; the lock is held.
func (s *stream) abort() {
	s.gone = true
	s.cancel()
	if s.conn != nil {
		s.conn.SetDeadline(time.Now())
	}
	s.changed.Broadcast()
}

// run is the life of the stream.
func (s *stream) run(port uint16, crowded bool) {
	t := s.tunnel
	defer t.running.Done()
	defer s.cancel()
	reason := TooMany
	if !crowded && t.table.enter() {
		reason = s.carry(port)
		t.table.leave()
	}
	t.mu.Lock()
	delete(t.streams, s.id)
	t.mu.Unlock()
	t.tell(s.id, Closed, byte(reason))
}

// carry connects and moves bytes both ways until both have ended, or one side breaks off.
func (s *stream) carry(port uint16) Reason {
	conn, err := dial(s.dialing, port)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return Refused
	case err != nil:
		return Lost
	}
	defer conn.Close()
	t := s.tunnel
	t.mu.Lock()
	s.conn = conn
	if s.gone {
		s.abort()
	}
	t.mu.Unlock()

	fed := make(chan bool, 1)
	go func() { fed <- s.feed() }()
	if s.drain() != nil || t.tell(s.id, End) != nil {
		t.mu.Lock()
		s.abort()
		t.mu.Unlock()
		<-fed
		return Lost
	}
	if !<-fed {
		return Lost
	}
	return Ended
}

// dial connects to a port of this machine; programs that know only IPv6 are found, too.
func dial(ctx context.Context, port uint16) (*net.TCPConn, error) {
	dialer := net.Dialer{Timeout: dialTime, KeepAlive: -1}
	conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port))))
	if errors.Is(err, syscall.ECONNREFUSED) {
		if six, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort("::1", strconv.Itoa(int(port)))); err == nil {
			return six.(*net.TCPConn), nil
		}
	}
	if err != nil {
		return nil, err
	}
	return conn.(*net.TCPConn), nil
}

// feed writes what the host sends; whether all of it could be written. A program that does not read any more may still
// have something to say, so a failure here does not end the other direction.
func (s *stream) feed() bool {
	t := s.tunnel
	var taken []byte
	granted := 0
	for {
		t.mu.Lock()
		for len(s.queue) == 0 && !s.ended && !s.gone {
			s.changed.Wait()
		}
		if s.gone {
			t.mu.Unlock()
			return false
		}
		taken, s.queue = s.queue, taken[:0]
		t.mu.Unlock()
		if len(taken) == 0 {
			return s.conn.CloseWrite() == nil
		}
		if _, err := s.conn.Write(taken); err != nil {
			return false
		}
		if granted += len(taken); granted >= grantStep && s.grant(granted) != nil {
			return false
		} else if granted >= grantStep {
			granted = 0
		}
	}
}

// grant lets the host send n more bytes.
func (s *stream) grant(n int) error {
	s.tunnel.mu.Lock()
	s.window += n
	s.tunnel.mu.Unlock()
	return s.tunnel.tell(s.id, Credit, binary.BigEndian.AppendUint32(nil, uint32(n))...)
}

// drain sends what the program writes until its end, within the credit.
func (s *stream) drain() error {
	raw, err := s.conn.SyscallConn()
	if err != nil {
		return err
	}
	t := s.tunnel
	for {
		t.mu.Lock()
		for s.credit == 0 && !s.gone {
			s.changed.Wait()
		}
		credit, gone := s.credit, s.gone
		t.mu.Unlock()
		if gone {
			return context.Canceled
		}
		n, err := s.forward(raw, credit)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		t.mu.Lock()
		s.credit -= n
		t.mu.Unlock()
	}
}

// forward waits for bytes and reads them straight into a frame: streams that are silent need no buffers.
func (s *stream) forward(raw syscall.RawConn, most int) (n int, err error) {
	var lost error
	waitErr := raw.Read(func(fd uintptr) bool {
		lost = s.tunnel.out(func(space []byte) int {
			room := space[HeadSize:]
			n, err = read(int(fd), room[:min(len(room), most)])
			if n <= 0 {
				return 0
			}
			return putHead(space, s.id, Data) + n
		})
		return err != syscall.EAGAIN
	})
	switch {
	case waitErr != nil:
		return 0, waitErr
	case err != nil:
		return 0, err
	case lost != nil:
		return 0, lost
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

func read(fd int, b []byte) (n int, err error) {
	for {
		if n, err = syscall.Read(fd, b); err != syscall.EINTR {
			return n, err
		}
	}
}
