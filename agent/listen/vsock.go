package listen

import (
	"errors"
	"io"
	"os"
	"syscall"
	"time"
	"unsafe"
)

const (
	afVsock = 40
	anyCID  = 0xffffffff
	backlog = 64
)

// vsockAddress is struct sockaddr_vm.
type vsockAddress struct {
	family   uint16
	reserved uint16
	port     uint32
	cid      uint32
	flags    uint8
	zero     [3]uint8
}

// Vsock is a listening vsock socket.
type Vsock struct {
	file *os.File
	raw  syscall.RawConn
}

// ListenVsock listens on a port for connections to any of the guest's addresses.
func ListenVsock(number uint32) (*Vsock, error) {
	fd, err := syscall.Socket(afVsock, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	address := vsockAddress{family: afVsock, port: number, cid: anyCID}
	_, _, errno := syscall.Syscall(syscall.SYS_BIND, uintptr(fd), uintptr(unsafe.Pointer(&address)), unsafe.Sizeof(address))
	if errno != 0 {
		syscall.Close(fd)
		return nil, os.NewSyscallError("bind", errno)
	}
	if err := syscall.Listen(fd, backlog); err != nil {
		syscall.Close(fd)
		return nil, os.NewSyscallError("listen", err)
	}
	file := os.NewFile(uintptr(fd), "vsock")
	raw, err := file.SyscallConn()
	return &Vsock{file, raw}, err
}

// Accept waits for the next connection. The listener survives a snapshot; its connections do not.
func (v *Vsock) Accept() (Channel, error) {
	var fd uintptr
	var errno syscall.Errno
	waitErr := v.raw.Read(func(listener uintptr) bool {
		for {
			fd, _, errno = syscall.Syscall6(syscall.SYS_ACCEPT4, listener, 0, 0, syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0, 0)
			// A client that left before it was accepted is no failure of the listener.
			if errno != syscall.EINTR && errno != syscall.ECONNABORTED && errno != syscall.ECONNRESET {
				return errno != syscall.EAGAIN
			}
		}
	})
	if waitErr != nil {
		return nil, waitErr
	}
	if errno != 0 {
		return nil, os.NewSyscallError("accept4", errno)
	}
	return NewSocket(int(fd)), nil
}

// Close stops listening.
func (v *Vsock) Close() error { return v.file.Close() }

// socket is a connected stream socket: it serves one client and is done.
type socket struct{ *os.File }

// NewSocket makes a Channel of a connected, non-blocking socket and owns it from then on.
func NewSocket(fd int) Channel { return socket{os.NewFile(uintptr(fd), "channel")} }

func (s socket) Reusable() bool { return false }
func (s socket) Interrupt()     { s.SetWriteDeadline(time.Now()) }
func (s socket) Resume()        { s.SetWriteDeadline(time.Time{}) }

func (s socket) Read(b []byte) (int, error) {
	n, err := s.File.Read(b)
	if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
		err = ErrClientLeft
	}
	return n, err
}
