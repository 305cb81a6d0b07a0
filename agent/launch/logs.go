package launch

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
)

const (
	copyBuffer  = 32 << 10
	logMode     = 0o600
	drainBudget = 900 * time.Millisecond
	drainGrace  = 100 * time.Millisecond // for the write that is under way
)

// boundedLog keeps the newest bytes of an endless stream in two files, path and path.1, of half
// the limit each. A full disk costs bytes, never an error: the stream must go on flowing.
type boundedLog struct {
	path string
	half int64
	fd   int // -1 while no file could be opened
	size int64
	lost int64
}

// openLog goes on where an earlier run of the machine stopped.
func openLog(spec logPlan) (*boundedLog, error) {
	l := &boundedLog{path: spec.Path, half: spec.Limit / 2, fd: -1}
	if info, err := os.Lstat(l.older()); err == nil && info.Size() > l.half {
		os.Remove(l.older()) // written under a larger limit
	}
	if err := l.open(0); err != nil {
		return nil, fmt.Errorf("open %s: %w", l.path, err)
	}
	return l, nil
}

func (l *boundedLog) older() string { return l.path + ".1" }

func (l *boundedLog) open(flags int) error {
	// O_NONBLOCK: should the path be a FIFO, opening it must fail, not wait.
	flags |= syscall.O_WRONLY | syscall.O_APPEND | syscall.O_CREAT | syscall.O_NOFOLLOW |
		syscall.O_NONBLOCK | syscall.O_CLOEXEC
	fd, err := syscall.Open(l.path, flags, logMode)
	if err != nil {
		return err
	}
	var stat syscall.Stat_t
	err = syscall.Fstat(fd, &stat)
	if err == nil && stat.Mode&syscall.S_IFMT != syscall.S_IFREG {
		err = errors.New("not a regular file")
	}
	if err == nil {
		err = syscall.Fchmod(fd, logMode)
	}
	if err == nil && stat.Size > l.half {
		err = syscall.Ftruncate(fd, 0)
		stat.Size = 0
	}
	if err != nil {
		syscall.Close(fd)
		return err
	}
	l.fd, l.size = fd, stat.Size
	return nil
}

func (l *boundedLog) close() {
	if l.fd >= 0 {
		syscall.Close(l.fd)
		l.fd = -1
	}
}

// rotate makes the full file the older one. When the disk refuses, the next write tries again.
func (l *boundedLog) rotate() bool {
	if l.fd >= 0 {
		if err := syscall.Rename(l.path, l.older()); err != nil {
			return false
		}
		l.close()
	}
	return l.open(syscall.O_EXCL) == nil
}

func (l *boundedLog) write(chunk []byte) {
	if l.lost > 0 {
		note := fmt.Sprintf("\n[pyro: %d bytes lost here]\n", l.lost)
		if l.append([]byte(note)) == len(note) {
			l.lost = 0
		}
	}
	l.lost += int64(len(chunk) - l.append(chunk))
}

// append stores what it can and returns how much that was.
func (l *boundedLog) append(chunk []byte) int {
	stored := 0
	for stored < len(chunk) {
		if (l.fd < 0 || l.size >= l.half) && !l.rotate() {
			return stored
		}
		room := min(int64(len(chunk)-stored), l.half-l.size)
		n, err := syscall.Write(l.fd, chunk[stored:stored+int(room)])
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil || n == 0 {
			return stored
		}
		stored += n
		l.size += int64(n)
	}
	return stored
}

// stream carries one output of the child to its log.
type stream struct {
	pipe *os.File
	log  *boundedLog
	done chan struct{}
	held int // a FIFO's write end, so that it does not end before the child does; -1 without one
}

// newStream returns the stream and the end of the pipe that the child writes to.
func newStream(spec logPlan) (*stream, int, error) {
	log, err := openLog(spec)
	if err != nil {
		return nil, -1, err
	}
	ends, err := openPipe(spec.Pipe)
	if err != nil {
		log.close()
		return nil, -1, err
	}
	pipe, err := pollable(ends[0], "output")
	if err != nil {
		log.close()
		syscall.Close(ends[1])
		return nil, -1, err
	}
	return &stream{pipe: pipe, log: log, done: make(chan struct{}), held: -1}, ends[1], nil
}

// newExtraStream is a stream that the child reaches by the name of its FIFO only.
func newExtraStream(spec logPlan) (*stream, error) {
	s, writer, err := newStream(spec)
	if err != nil {
		return nil, err
	}
	s.held = writer
	return s, nil
}

// openPipe gives both ends of a pipe, or of the FIFO of this name. Not os.Pipe: it makes both ends non-blocking, and
// the child would lose output on EAGAIN.
func openPipe(name string) (ends [2]int, err error) {
	if name == "" {
		return ends, syscall.Pipe2(ends[:], syscall.O_CLOEXEC)
	}
	const safe = syscall.O_CLOEXEC | syscall.O_NOFOLLOW
	if ends[0], err = syscall.Open(name, syscall.O_RDONLY|syscall.O_NONBLOCK|safe, 0); err != nil {
		return ends, fmt.Errorf("open %s: %w", name, err)
	}
	var stat syscall.Stat_t
	if err = syscall.Fstat(ends[0], &stat); err == nil && stat.Mode&syscall.S_IFMT != syscall.S_IFIFO {
		err = errors.New("not a FIFO")
	}
	if err == nil {
		ends[1], err = syscall.Open(name, syscall.O_WRONLY|safe, 0) // does not wait: there is a reader
	}
	if err != nil {
		syscall.Close(ends[0])
		return ends, fmt.Errorf("open %s: %w", name, err)
	}
	return ends, nil
}

// letGo closes the write ends that kept FIFOs open, so that their streams end.
func letGo(streams ...*stream) {
	for _, s := range streams {
		if s.held >= 0 {
			syscall.Close(s.held)
			s.held = -1
		}
	}
}

func (s *stream) copy() {
	defer close(s.done)
	defer s.log.close()
	defer s.pipe.Close()
	buffer := make([]byte, copyBuffer)
	for {
		n, err := s.pipe.Read(buffer)
		s.log.write(buffer[:n])
		if err != nil {
			return
		}
	}
}

// drain reads what the dead child left in the pipes. The budget is for a pipe end that escaped to
// a process which is not ours to kill, and for a disk that hangs.
func drain(streams ...*stream) {
	limit := time.Now().Add(drainBudget)
	late := time.After(drainBudget + drainGrace)
	for _, s := range streams {
		_ = s.pipe.SetReadDeadline(limit) // fails only when the copy has ended
	}
	for _, s := range streams {
		select {
		case <-s.done:
		case <-late:
			return
		}
	}
}
