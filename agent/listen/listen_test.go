package listen

import (
	"errors"
	"os"
	"syscall"
	"testing"
	"unsafe"
)

// pair gives a channel and the host's end of it.
func pair(t *testing.T) (Channel, *os.File) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	c, host := NewSocket(fds[0]), os.NewFile(uintptr(fds[1]), "host")
	t.Cleanup(func() { c.Close(); host.Close() })
	return c, host
}

func TestASocketTellsThatItsClientLeft(t *testing.T) {
	c, host := pair(t)
	if _, err := host.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	host.Close()
	buf := make([]byte, 8)
	if n, err := c.Read(buf); n != 1 || err != nil {
		t.Error(n, err)
	}
	if _, err := c.Read(buf); !errors.Is(err, ErrClientLeft) || c.Reusable() {
		t.Error(err)
	}
}

func TestInterruptEndsABlockedWrite(t *testing.T) {
	c, host := pair(t)
	done := make(chan error)
	go func() {
		_, err := c.Write(make([]byte, 16<<20)) // more than any socket buffer
		done <- err
	}()
	if _, err := host.Read(make([]byte, 1)); err != nil { // the write has begun
		t.Fatal(err)
	}
	c.Interrupt()
	if err := <-done; err == nil {
		t.Error("the write went on")
	}
	c.Resume()
	go func() {
		_, err := c.Write([]byte("again"))
		done <- err
	}()
	buf := make([]byte, 1<<20)
	for {
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
			return
		default:
			if _, err := host.Read(buf); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestAPortServesOneClientAfterTheOther checks the reading of a port with something that also gives 0 and then more: a FIFO that writers
// open and close.
func TestAPortServesOneClientAfterTheOther(t *testing.T) {
	path := t.TempDir() + "/port"
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	p, err := newPort(fd, path)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	buf := make([]byte, 8)
	for _, word := range []string{"one", "two"} {
		client, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		p.met.Store(true) // as a write would have found out
		if _, err := client.WriteString(word); err != nil {
			t.Fatal(err)
		}
		client.Close()
		if n, err := p.Read(buf); err != nil || string(buf[:n]) != word {
			t.Fatalf("%q %v", buf[:n], err)
		}
		if n, err := p.Read(buf); n != 0 || !errors.Is(err, ErrClientLeft) {
			t.Fatal(n, err)
		}
	}
}

func TestVsock(t *testing.T) {
	const port, local = 50505, 1
	v, err := ListenVsock(port)
	if err != nil {
		t.Skip("no vsock here: ", err)
	}
	defer v.Close()
	fd, err := syscall.Socket(afVsock, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	host := os.NewFile(uintptr(fd), "host")
	defer host.Close()
	address := vsockAddress{family: afVsock, port: port, cid: local}
	_, _, errno := syscall.Syscall(syscall.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&address)), unsafe.Sizeof(address))
	if errno != 0 {
		t.Skip("vsock has no loopback here: ", errno)
	}
	c, err := v.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("hi")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 8)
	if n, err := host.Read(buf); err != nil || string(buf[:n]) != "hi" {
		t.Fatal(n, err)
	}
	host.Close()
	if _, err := c.Read(buf); !errors.Is(err, ErrClientLeft) {
		t.Error(err)
	}
}
