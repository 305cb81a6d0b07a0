// Package nstest runs the tests of a package in a network namespace of their own, where they may do as they like: as root,
// or as the root of a user namespace. It is part of no program.
package nstest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"

	"pyro.dev/agent/rtnl"
)

const inside = "PYRO_TEST_NAMESPACE"

// Main is what TestMain does.
func Main(m *testing.M) {
	if os.Getenv(inside) != "" {
		os.Exit(m.Run())
	}
	again := exec.Command("/proc/self/exe", os.Args[1:]...)
	again.Stdin, again.Stdout, again.Stderr = os.Stdin, os.Stdout, os.Stderr
	again.Env = append(os.Environ(), inside+"=1")
	again.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if os.Getuid() != 0 {
		again.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		again.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		again.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	err := again.Run()
	var failed *exec.ExitError
	if err != nil && !errors.As(err, &failed) {
		fmt.Fprintln(os.Stderr, "no namespace for the tests:", err)
		os.Exit(1)
	}
	os.Exit(again.ProcessState.ExitCode())
}

// Alone gives the test a namespace of its own, beside the others', for as long as it lasts.
func Alone(t *testing.T) *rtnl.Socket {
	t.Helper()
	runtime.LockOSThread() // for good: the thread ends with the test
	if err := syscall.Unshare(syscall.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	return Open(t)
}

// Open is a socket of the namespace this thread is in.
func Open(t *testing.T) *rtnl.Socket {
	t.Helper()
	socket, err := rtnl.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(socket.Close)
	return socket
}

// Here is a descriptor of the namespace this thread is in.
func Here(t *testing.T) int {
	t.Helper()
	fd, err := syscall.Open("/proc/thread-self/ns/net", syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	return fd
}

// Devices makes a pair in this namespace, switched off.
func Devices(t *testing.T, socket *rtnl.Socket, name, peer string) {
	t.Helper()
	if err := socket.AddVeth(name, peer, Here(t)); err != nil {
		t.Fatal(err)
	}
}
