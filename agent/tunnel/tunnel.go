// Package tunnel carries TCP connections to programs of the guest over one session, many at a time.
//
// Each direction of each stream has a credit, so a stream that stands still keeps no other from moving, and what waits
// in the guest is bounded. docs/protocol.md has the bytes.
package tunnel

import (
	"context"
	"encoding/binary"
	"errors"
	"sync"
	"sync/atomic"
)

const (
	// Window is how many bytes of a stream may be on their way to the guest, or wait in it.
	Window = 64 << 10
	// StreamsMost is how many streams a tunnel may have at once; totalMost, how many all tunnels together.
	StreamsMost = 128
	totalMost   = 256
	// HeadSize are the bytes of a frame's payload before its body.
	HeadSize = 5
	// grantStep is the least worth a Credit; well below the window, so the host never runs dry for want of one.
	grantStep = Window / 4
	// creditMost keeps what the host grants far from overflow.
	creditMost = 1 << 30
)

// Kind says what a frame of a tunnel does to its stream.
type Kind uint8

// Open and Reset are the host's, Closed is the guest's, and its last word about a stream.
const (
	Open   Kind = 1
	Data   Kind = 2
	End    Kind = 3
	Credit Kind = 4
	Reset  Kind = 5
	Closed Kind = 6
)

// Reason is why a stream is closed.
type Reason uint8

// Ended: both sides had said End. Refused: nobody listens. Lost: one side broke off. TooMany: a limit is reached.
const (
	Ended   Reason = 0
	Refused Reason = 1
	Lost    Reason = 2
	TooMany Reason = 3
)

// ErrMalformed is what Take returns for a frame that no good host sends.
var ErrMalformed = errors.New("malformed frame of a tunnel")

// Table is what all tunnels of a guest share.
type Table struct{ live atomic.Int64 }

func (t *Table) enter() bool {
	if t.live.Add(1) <= totalMost {
		return true
	}
	t.live.Add(-1)
	return false
}

func (t *Table) leave() { t.live.Add(-1) }

// Out sends a frame whose payload fill puts into the space it gets; with a length of 0 nothing is sent.
// It may be called by any number of goroutines.
type Out func(fill func(space []byte) int) error

// Tunnel is the streams of one session.
type Tunnel struct {
	table   *Table
	out     Out
	first   int // the credit each stream begins with
	streams map[uint32]*stream
	last    uint32
	mu      sync.Mutex
	running sync.WaitGroup
}

// New makes a tunnel. The host takes credit bytes of each stream before it grants more.
func New(table *Table, credit int, out Out) *Tunnel {
	return &Tunnel{table: table, out: out, first: credit, streams: map[uint32]*stream{}}
}

// Take carries out a frame of the host; it never waits.
func (t *Tunnel) Take(payload []byte) error {
	if len(payload) < HeadSize {
		return ErrMalformed
	}
	id, kind, body := binary.BigEndian.Uint32(payload), Kind(payload[4]), payload[HeadSize:]
	t.mu.Lock()
	defer t.mu.Unlock()
	if kind == Open {
		return t.open(id, body)
	}
	if id == 0 || id > t.last {
		return ErrMalformed
	}
	s := t.streams[id]
	if s == nil {
		return nil // it was under way when the stream was closed
	}
	return s.take(kind, body)
}

// open begins a stream; mu is held.
func (t *Tunnel) open(id uint32, body []byte) error {
	if id <= t.last || len(body) != 2 {
		return ErrMalformed
	}
	port := binary.BigEndian.Uint16(body)
	if port == 0 {
		return ErrMalformed
	}
	t.last = id
	s := &stream{tunnel: t, id: id, window: Window, credit: t.first}
	s.changed.L = &t.mu
	s.dialing, s.cancel = context.WithCancel(context.Background())
	crowded := len(t.streams) >= StreamsMost
	t.streams[id] = s
	t.running.Add(1)
	go s.run(port, crowded)
	return nil
}

// Stop breaks all streams off. Nothing may be taken any more.
func (t *Tunnel) Stop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.streams {
		s.abort()
	}
}

// Wait returns when nothing of a stopped tunnel runs or writes any more.
func (t *Tunnel) Wait() { t.running.Wait() }

// tell sends a frame without data.
func (t *Tunnel) tell(id uint32, kind Kind, body ...byte) error {
	return t.out(func(space []byte) int {
		return HeadSize + copy(space[putHead(space, id, kind):], body)
	})
}

func putHead(space []byte, id uint32, kind Kind) int {
	binary.BigEndian.PutUint32(space, id)
	space[4] = byte(kind)
	return HeadSize
}
