package job

import "syscall"

// Kind says what an Event is.
type Kind int

// Output has bytes; Granted allows more input; Ended is the last event; Lost means Cancel was called.
const (
	Output Kind = iota
	Granted
	Ended
	Lost
)

// Event is the next thing a client has to be told.
type Event struct {
	Kind   Kind
	Stream int
	Offset uint64 // of the first byte
	Size   int    // bytes put into the buffer, or bytes granted
	Exit   *Exit
}

// Client is one attached session. All clients get the output; the newest one owns the input.
type Client struct {
	job    *Job
	sent   [2]uint64 // offsets up to which the output was given
	turn   int       // the stream to look at first, so that neither starves
	credit int       // bytes of input it may still send
	grant  int       // bytes of credit to give back
	gone   bool
}

// Attach adds a client that has the output up to the offsets.
func (j *Job) Attach(offsets [2]uint64) *Client {
	j.mu.Lock()
	defer j.mu.Unlock()
	c := &Client{job: j}
	for i := range c.sent {
		c.sent[i] = min(offsets[i], j.streams[i].end)
	}
	j.clients = append(j.clients, c)
	if j.stdin.wanted {
		c.credit = stdinWindow - j.stdin.queued
	}
	j.stdin.owner = c
	return c
}

// Job is the job of this client.
func (c *Client) Job() *Job { return c.job }

// Input returns the credit and how many bytes of input the job has taken so far.
func (c *Client) Input() (credit int, offset uint64) {
	c.job.mu.Lock()
	defer c.job.mu.Unlock()
	return c.credit, c.job.stdin.accepted
}

// Cancel makes Next return Lost, now and for ever.
func (c *Client) Cancel() {
	c.job.mu.Lock()
	c.gone = true
	c.job.changed.Broadcast()
	c.job.mu.Unlock()
}

// Detach takes the client from the job. The job goes on.
func (c *Client) Detach() {
	j := c.job
	j.mu.Lock()
	defer j.mu.Unlock()
	for i, other := range j.clients {
		if other == c {
			j.clients = append(j.clients[:i], j.clients[i+1:]...)
			break
		}
	}
	if j.stdin.owner == c {
		j.stdin.owner = nil
	}
	j.room.Broadcast() // without clients nobody needs to be waited for
}

// Next waits for the next event; output is put into buf.
func (c *Client) Next(buf []byte) Event {
	j := c.job
	j.mu.Lock()
	defer j.mu.Unlock()
	for {
		if c.gone {
			return Event{Kind: Lost}
		}
		if c.grant >= stdinStep {
			n := c.grant
			c.credit += n
			c.grant = 0
			return Event{Kind: Granted, Size: n}
		}
		for range j.streams {
			c.turn ^= 1
			if e, ok := c.output(c.turn, buf); ok {
				return e
			}
		}
		if j.exit != nil {
			return Event{Kind: Ended, Exit: j.exit}
		}
		j.changed.Wait()
	}
}

func (c *Client) output(i int, buf []byte) (Event, bool) {
	s := &c.job.streams[i]
	from := max(c.sent[i], s.start)
	n := s.read(buf, from)
	if n == 0 {
		return Event{}, false
	}
	c.sent[i] = from + uint64(n)
	s.seen = max(s.seen, c.sent[i])
	c.job.room.Broadcast()
	return Event{Kind: Output, Stream: i, Offset: from, Size: n}, true
}

// Signal signals the job's process group.
func (c *Client) Signal(sig syscall.Signal) { c.job.Signal(sig, false) }

// Resize tells the job its terminal's new size.
func (c *Client) Resize(rows, columns uint16) { c.job.Resize(rows, columns) }
