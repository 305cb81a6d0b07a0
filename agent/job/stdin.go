package job

import (
	"os"
	"time"
)

const (
	// stdinWindow is the most input that is on its way or waits here.
	stdinWindow = 262144
	// stdinStep is the least worth a CREDIT; well below the window, so the host never runs dry for want of one.
	stdinStep = 65536
	// endOfTransmission is what a terminal takes for the end of its input.
	endOfTransmission = 4
)

// stdin is a job's input, waiting to be written.
type stdin struct {
	wanted   bool
	file     *os.File // a pipe or the terminal's master; nil when not wanted
	terminal *os.File // the master, when there is a terminal
	queue    [][]byte
	queued   int
	accepted uint64
	eof      bool // no more will come
	closed   bool // nobody reads it any more
	owner    *Client
}

// Stdin takes input from the client; it never waits. Input of a client that is no longer the newest is dropped.
func (c *Client) Stdin(p []byte) error {
	j := c.job
	j.mu.Lock()
	defer j.mu.Unlock()
	in := &j.stdin
	switch {
	case !in.wanted || in.owner != c:
		return nil
	case len(p) > c.credit:
		return ErrCredit
	}
	c.credit -= len(p)
	if in.closed || in.eof {
		j.giveBack(len(p))
		return nil
	}
	in.queue = append(in.queue, append([]byte(nil), p...))
	in.queued += len(p)
	in.accepted += uint64(len(p))
	j.input.Signal()
	return nil
}

// StdinEOF ends the input once all of it has been written.
func (c *Client) StdinEOF() {
	j := c.job
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.stdin.owner == c {
		j.stdin.eof = true
		j.input.Signal()
	}
}

// giveBack returns credit to whoever owns the input; mu is held.
func (j *Job) giveBack(n int) {
	if c := j.stdin.owner; c != nil {
		c.grant += n
		if c.grant >= stdinStep {
			j.changed.Broadcast()
		}
	}
}

// feed writes the input until its end, or until nobody reads it.
func (j *Job) feed() {
	in := &j.stdin
	for {
		j.mu.Lock()
		for len(in.queue) == 0 && !in.eof && !in.closed {
			j.input.Wait()
		}
		if in.closed || len(in.queue) == 0 {
			in.closed = true
			j.mu.Unlock()
			break
		}
		p := in.queue[0]
		in.queue = in.queue[1:]
		j.mu.Unlock()

		_, err := in.file.Write(p)

		j.mu.Lock()
		in.queued -= len(p)
		j.giveBack(len(p))
		if err != nil {
			in.closed = true
			j.giveBack(in.queued)
			in.queue, in.queued = nil, 0
		}
		j.mu.Unlock()
	}
	if in.terminal == nil {
		in.file.Close()
	} else {
		in.file.Write([]byte{endOfTransmission})
	}
}

// closeInput ends feed, whatever it waits for; mu is held.
func (j *Job) closeInput() {
	if j.stdin.file != nil {
		j.stdin.closed = true
		j.stdin.file.SetWriteDeadline(time.Now())
		j.input.Signal()
	}
}
