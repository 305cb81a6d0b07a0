package netns

import (
	"fmt"
	"os"
	"syscall"

	"pyro.dev/agent/gate"
	"pyro.dev/agent/rtnl"
)

const (
	ownProgram   = "/proc/self/exe"
	sysPidfdOpen = 434 // on every architecture
)

// gateLink is the line to the gate of this machine.
type gateLink struct{ socket int }

// startGate starts it where it is to live: in the host's network namespace, in pid and mount namespaces of its own. It
// is our child, and so the VMM's, which we become: it ends with the machine.
func startGate() (*gateLink, error) {
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_SEQPACKET|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	null, err := syscall.Open(os.DevNull, syscall.O_RDWR|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	_, err = syscall.ForkExec(ownProgram, []string{"pyro-agent", "gate"}, &syscall.ProcAttr{
		Dir:   "/",
		Env:   []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"},
		Files: []uintptr{uintptr(null), 2, 2, uintptr(pair[1])},
		Sys: &syscall.SysProcAttr{
			Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS,
			Pdeathsig:  syscall.SIGKILL,
		},
	})
	syscall.Close(null)
	syscall.Close(pair[1])
	if err != nil {
		return nil, fmt.Errorf("start the gate: %w", err)
	}
	return &gateLink{pair[0]}, nil
}

// connect hands over what the gate needs of this namespace, and waits until there is a way out.
func (l *gateLink) connect(p *Plan, inside *rtnl.Socket) error {
	defer syscall.Close(l.socket)
	udp, tcp, err := p.resolverSockets()
	if err != nil {
		return err
	}
	namespace, err := syscall.Open("/proc/thread-self/ns/net", syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	self, _, errno := syscall.RawSyscall(sysPidfdOpen, uintptr(syscall.Getpid()), 0, 0)
	if errno != 0 {
		return fmt.Errorf("pidfd_open: %w", errno)
	}
	handed := gate.Handover{Namespace: namespace, Netlink: inside.FD(), UDP: udp, TCP: tcp, Machine: int(self)}
	err = gate.Ask(l.socket, &gate.Plan{
		Uplink:    *p.Uplink,
		Resolver:  *p.Resolver,
		Directory: p.Directory,
		NFT:       p.NFT,
		MTU:       p.MTU,
		UID:       p.GateUID,
		GID:       p.GateGID,
	}, handed)
	for _, fd := range []int{udp, tcp, namespace, int(self)} {
		syscall.Close(fd)
	}
	if err != nil {
		return fmt.Errorf("uplink: %w", err)
	}
	return nil
}
