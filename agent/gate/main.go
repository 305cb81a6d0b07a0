package gate

import (
	"fmt"
	"net"
	"os"
	"path"
	"runtime"
	"runtime/debug"
	"syscall"
	"unsafe"

	"pyro.dev/agent/confine"
	"pyro.dev/agent/resolve"
)

const (
	// Socket is the descriptor a gate is asked through.
	Socket     = 3
	exitFailed = 1
	gcPercent  = 20
	lockFile   = "gate.lock"
	pollIn     = 0x001
)

// Main runs `pyro-agent gate`. It is the first process of a pid namespace: whatever it has started ends with it, by the
// kernel's doing, and it ends with the machine.
func Main() int {
	// The children's parent-death signal belongs to the thread that started them.
	runtime.LockOSThread()
	syscall.CloseOnExec(Socket)
	plan, handed, err := receive(Socket)
	if err != nil {
		return complain(err)
	}
	ended, err := open(plan, handed)
	if err == nil {
		err = plan.settle()
	}
	var udp net.PacketConn
	var tcp net.Listener
	if err == nil {
		udp, tcp, err = sockets(handed)
	}
	reply(Socket, err)
	if err != nil {
		return complain(err)
	}
	for _, fd := range []int{Socket, handed.Namespace, handed.Netlink, handed.UDP, handed.TCP} {
		syscall.Close(fd)
	}
	debug.SetGCPercent(gcPercent)
	over := make(chan error, 1)
	go func() { over <- awaitEnd(handed.Machine) }()
	served := make(chan error, 1)
	go func() { served <- resolve.Serve(plan.Resolver, udp, tcp) }()
	select {
	case err = <-served:
		err = fmt.Errorf("resolver: %w", err)
	case err = <-ended:
	case err = <-over:
		if err == nil {
			return 0
		}
	}
	return complain(err)
}

// awaitEnd waits for the end of the process of a pidfd. The parent-death signal is not enough: as the VMM's user and
// ours differ, it is not the VMM's to send (kill(2)).
func awaitEnd(pidfd int) error {
	set := struct {
		fd      int32
		events  int16
		revents int16
	}{fd: int32(pidfd), events: pollIn}
	for {
		n, _, errno := syscall.Syscall6(syscall.SYS_PPOLL, uintptr(unsafe.Pointer(&set)), 1, 0, 0, 0, 0)
		if errno == 0 && n == 1 {
			return nil
		}
		if errno != 0 && errno != syscall.EINTR {
			return fmt.Errorf("watch the machine: %w", errno)
		}
	}
}

// settle gives up what was needed to make the uplink. The programs that were started keep what they have.
func (p *Plan) settle() error {
	if err := os.Chdir(p.Directory); err != nil { // its files can be reached from there, whoever we are
		return err
	}
	if p.Resolver.Stats != "" {
		p.Resolver.Stats = path.Base(p.Resolver.Stats)
	}
	if err := holdLock(); err != nil {
		return err
	}
	if p.UID >= 0 {
		if err := os.Chown(".", int(p.UID), int(p.GID)); err != nil {
			return err
		}
		if err := confine.BecomeUser(int(p.UID), int(p.GID), nil); err != nil {
			return err
		}
	}
	return confine.DropEverywhere()
}

// holdLock locks a file for as long as we live, whatever ends us: who finds it free knows that there is no way out any
// more. What we started before does not have the descriptor.
func holdLock() error {
	file, err := os.OpenFile(lockFile, os.O_RDWR|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	keep(file)
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return fmt.Errorf("lock %s: %w", lockFile, err)
	}
	return nil
}

func sockets(handed Handover) (net.PacketConn, net.Listener, error) {
	udp := os.NewFile(uintptr(handed.UDP), "udp")
	packets, err := net.FilePacketConn(udp)
	if err != nil {
		return nil, nil, fmt.Errorf("resolver: %w", err)
	}
	tcp := os.NewFile(uintptr(handed.TCP), "tcp")
	listener, err := net.FileListener(tcp)
	if err != nil {
		return nil, nil, fmt.Errorf("resolver: %w", err)
	}
	return packets, listener, nil
}

func complain(err error) int {
	fmt.Fprintln(os.Stderr, "pyro-agent gate:", err)
	return exitFailed
}
