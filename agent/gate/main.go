package gate

import (
	"fmt"
	"net"
	"os"
	"path"
	"runtime"
	"runtime/debug"
	"syscall"

	"pyro.dev/agent/confine"
	"pyro.dev/agent/resolve"
)

const (
	// Socket is the descriptor a gate is asked through.
	Socket     = 3
	exitFailed = 1
	gcPercent  = 20
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
	served := make(chan error, 1)
	go func() { served <- resolve.Serve(plan.Resolver, udp, tcp) }()
	select {
	case err = <-served:
		err = fmt.Errorf("resolver: %w", err)
	case err = <-ended:
	}
	return complain(err)
}

// settle gives up what was needed to make the uplink. The programs that were started keep what they have.
func (p *Plan) settle() error {
	if err := os.Chdir(p.Directory); err != nil { // its files can be reached from there, whoever we are
		return err
	}
	if p.Resolver.Stats != "" {
		p.Resolver.Stats = path.Base(p.Resolver.Stats)
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
