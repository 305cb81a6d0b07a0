package listen

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

const (
	portClass = "/sys/class/virtio-ports"
	// portPrefix marks the ports that are for us; a port's name is chosen by the host.
	portPrefix = "pyro.link."
)

// EachSerial calls serve, on a goroutine of its own, for each of our ports that exists or appears. A port is announced by
// the kernel some time after its driver was loaded, and gets its name later still; each step is a uevent.
func EachSerial(serve func(Channel)) error {
	events, err := uevents()
	if err != nil {
		return err
	}
	go func() {
		defer events.Close()
		known := map[string]bool{}
		message := make([]byte, 4096)
		for err := error(nil); err == nil || errors.Is(err, syscall.ENOBUFS); _, err = events.Read(message) {
			for _, path := range serialPorts() {
				if known[path] {
					continue
				}
				channel, err := openSerial(path)
				if err != nil {
					continue // not yet in /dev: its own event comes
				}
				known[path] = true
				go serve(channel)
			}
		}
	}()
	return nil
}

// uevents opens a netlink socket with the kernel's own announcements of devices.
func uevents() (*os.File, error) {
	const kernelGroup = 1
	fd, err := syscall.Socket(syscall.AF_NETLINK, syscall.SOCK_DGRAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, syscall.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err := syscall.Bind(fd, &syscall.SockaddrNetlink{Family: syscall.AF_NETLINK, Groups: kernelGroup}); err != nil {
		syscall.Close(fd)
		return nil, os.NewSyscallError("bind", err)
	}
	return os.NewFile(uintptr(fd), "uevents"), nil
}

// serialPorts returns the device paths of our ports that exist and have their name now.
func serialPorts() (paths []string) {
	entries, _ := os.ReadDir(portClass)
	for _, e := range entries {
		name, err := os.ReadFile(filepath.Join(portClass, e.Name(), "name"))
		if err == nil && strings.HasPrefix(string(name), portPrefix) {
			paths = append(paths, "/dev/"+e.Name())
		}
	}
	return paths
}

// openSerial opens one port. A port allows one opener and serves one client of the host at a time.
func openSerial(path string) (Channel, error) {
	fd, err := syscall.Open(path, syscall.O_RDWR|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return newPort(fd, path)
}

func newPort(fd int, path string) (*port, error) {
	// Being non-blocking, the file joins the runtime's poller.
	file := os.NewFile(uintptr(fd), path)
	raw, err := file.SyscallConn()
	if err != nil {
		file.Close()
		return nil, err
	}
	return &port{file: file, raw: raw}, nil
}

// port is a virtio-serial port. Without a client of the host, read(2) gives 0 at once, poll(2) gives POLLHUP for
// ever, and write(2) gives EAGAIN; only the edges say when that changes, so each wait is for an edge.
//
// The kernel hears of a client on another queue than that of the client's bytes, so these may come first: a port that
// looks hung up may have a client whose HELLO was just read.
type port struct {
	file *os.File
	raw  syscall.RawConn
	// met is set once the kernel has shown that the present client is connected: only then is its leaving news.
	met         atomic.Bool
	interrupted atomic.Bool
}

// meetTime is how long a writer waits for the kernel to notice a client.
const meetTime = time.Second

func (p *port) Reusable() bool { return true }
func (p *port) Close() error   { return p.file.Close() }

func (p *port) Interrupt() {
	p.interrupted.Store(true)
	p.file.SetWriteDeadline(time.Now())
}

func (p *port) Resume() {
	p.interrupted.Store(false)
	p.file.SetWriteDeadline(time.Time{})
}

func (p *port) Read(b []byte) (n int, err error) {
	waitErr := p.raw.Read(func(fd uintptr) bool {
		n, err = readAll(int(fd), b)
		switch {
		case err == syscall.EAGAIN:
			p.met.Store(true)
			return false
		case err != nil || n > 0:
			return true
		case p.met.Swap(false):
			err = ErrClientLeft
			return true
		}
		return false
	})
	return max(n, 0), firstError(waitErr, err)
}

// Write writes all of b, at most 32 KiB per call of the kernel.
func (p *port) Write(b []byte) (done int, err error) {
	var alone time.Time // since when the port has looked hung up
	var alarm *time.Timer
	for {
		waitErr := p.raw.Write(func(fd uintptr) bool {
			for done < len(b) && !p.interrupted.Load() {
				n, werr := retry(syscall.Write, int(fd), b[done:])
				if werr == syscall.EAGAIN {
					if alone.IsZero() && hungUp(int(fd)) {
						alone = time.Now()
						alarm = time.AfterFunc(meetTime, func() { p.file.SetWriteDeadline(time.Now()) })
					}
					return false
				}
				if werr != nil {
					err = werr
					return true
				}
				alone = time.Time{}
				p.met.Store(true)
				done += n
			}
			return true
		})
		if alarm != nil {
			alarm.Stop()
		}
		switch {
		case p.interrupted.Load():
			return done, ErrClientLeft
		case !errors.Is(waitErr, os.ErrDeadlineExceeded):
			return done, firstError(waitErr, err)
		case !alone.IsZero() && time.Since(alone) >= meetTime:
			err = ErrClientLeft
		}
		p.file.SetWriteDeadline(time.Time{})
		if err != nil || p.interrupted.Load() {
			return done, ErrClientLeft
		}
	}
}

// readAll reads until b is full or nothing more is there: one read(2) of a port gives at most a page. The calls are raw,
// since they never wait: with the usual ones Go's scheduler looks for other work during each, which costs more.
func readAll(fd int, b []byte) (done int, err error) {
	for done < len(b) {
		n, _, errno := syscall.RawSyscall(syscall.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&b[done])), uintptr(len(b)-done))
		switch {
		case errno == syscall.EINTR:
			continue
		case errno != 0 && done == 0:
			return 0, errno
		case errno != 0 || n == 0:
			return done, nil // the next call tells
		}
		done += int(n)
	}
	return done, nil
}

func retry(call func(int, []byte) (int, error), fd int, b []byte) (n int, err error) {
	for {
		if n, err = call(fd, b); err != syscall.EINTR {
			return n, err
		}
	}
}

// hungUp asks poll(2), without waiting, whether the host's end is closed.
func hungUp(fd int) bool {
	const pollHup = 0x10
	entry := struct {
		fd      int32
		events  int16
		revents int16
	}{fd: int32(fd)}
	var now syscall.Timespec
	// ppoll, since not every architecture has poll.
	syscall.Syscall6(syscall.SYS_PPOLL, uintptr(unsafe.Pointer(&entry)), 1, uintptr(unsafe.Pointer(&now)), 0, 0, 0)
	return entry.revents&pollHup != 0
}

func firstError(a, b error) error {
	if a != nil {
		return a
	}
	return b
}
