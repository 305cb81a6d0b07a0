package job

import (
	"errors"
	"io"
	"os"
	"sync"
	"syscall"
	"time"
)

const (
	// quiet is how long a stream that outlives the leader may be silent before the job ends without it.
	quiet = 200 * time.Millisecond
	// drain is how long it may go on talking.
	drain = 2 * time.Second
	// maxForsaken bounds the streams that are still read after their job has ended.
	maxForsaken = 512
)

var readBuffers = sync.Pool{New: func() any { return new([32 << 10]byte) }}

// pump moves one stream into its buffer until it ends or, once the leader is gone, is silent or has had its time.
func (j *Job) pump(i int) {
	file := j.streams[i].file
	left := time.Duration(-1) // for the rest of the output; negative while the leader lives
	for {
		var stored time.Duration
		began := time.Now()
		err := readOnce(file, func(p []byte) {
			stored = time.Since(began)
			j.store(i, p)
		})
		switch {
		case err == nil && left < 0:
			continue
		case errors.Is(err, os.ErrDeadlineExceeded) && left < 0:
			left = drain
		case err == nil && left > stored:
			left -= stored // waiting for a slow client costs nothing
		default:
			j.done()
			if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
				j.table.forsake(file)
			}
			file.Close() // else the end of file, or EIO of a terminal without users
			return
		}
		file.SetReadDeadline(time.Now().Add(quiet))
	}
}

// readOnce waits for bytes and gives them to use. Nothing is held while it waits.
func readOnce(file *os.File, use func([]byte)) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var n int
	var buf *[32 << 10]byte
	waitErr := raw.Read(func(fd uintptr) bool {
		buf = readBuffers.Get().(*[32 << 10]byte)
		for {
			if n, err = syscall.Read(int(fd), buf[:]); err != syscall.EINTR {
				break
			}
		}
		if err == syscall.EAGAIN {
			readBuffers.Put(buf)
			return false
		}
		return true
	})
	if waitErr != nil {
		return waitErr
	}
	if n > 0 {
		use(buf[:n])
	}
	readBuffers.Put(buf)
	if err == nil && n == 0 {
		return io.EOF
	}
	return err
}

// store puts bytes into the buffer. With clients it waits for the slowest; without, the oldest bytes make room.
func (j *Job) store(i int, p []byte) {
	j.mu.Lock()
	defer j.mu.Unlock()
	s := &j.streams[i]
	for len(p) > 0 {
		keep := s.end
		for _, c := range j.clients {
			keep = min(keep, c.sent[i])
		}
		before := s.start
		n := s.write(p, keep)
		s.dropped += max(s.start, s.seen) - max(before, s.seen)
		p = p[n:]
		if n > 0 {
			j.changed.Broadcast()
		} else {
			j.room.Wait()
		}
	}
}

// exited is called by the reaper, under its lock, while the leader is still a zombie.
func (j *Job) exited(pid int, status syscall.WaitStatus) {
	j.mu.Lock()
	j.status, j.gone = status, true
	killRest := j.timedOut && j.group == nil
	for i := range j.streams {
		if f := j.streams[i].file; f != nil {
			f.SetReadDeadline(time.Now()) // pump sees the leader's end
		}
	}
	j.mu.Unlock()
	if killRest {
		// Without a cgroup the group can be named only as long as its leader's number is taken.
		syscall.Kill(-pid, syscall.SIGKILL)
	}
	j.done()
}

// done counts down to the end of the job.
func (j *Job) done() {
	j.mu.Lock()
	j.pending--
	last := j.pending == 0
	j.mu.Unlock()
	if last {
		go j.finish() // off the reaper's goroutine: it reads files
	}
}

// forsake keeps reading a stream of an ended job and drops it, so that what the job left running is not killed by
// SIGPIPE or stopped by a full pipe.
func (t *Table) forsake(file *os.File) {
	if t.forsaken.Add(1) <= maxForsaken {
		file.SetReadDeadline(time.Time{})
		for readOnce(file, func([]byte) {}) == nil {
		}
	}
	t.forsaken.Add(-1)
}
