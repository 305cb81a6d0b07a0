package netns

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"unsafe"

	"pyro.dev/agent/rtnl"
)

const (
	tunDevice = "/dev/net/tun"

	tunSetIff     = 0x400454ca
	tunSetPersist = 0x400454cb
	tunSetOwner   = 0x400454cc
	flagTap       = 0x0002 // IFF_TAP
	flagNoInfo    = 0x1000 // IFF_NO_PI
	flagVnetHdr   = 0x4000 // IFF_VNET_HDR: checksums and large packets are the host's work

	resolverPort = 53
	backlog      = 64
	maxComplaint = 4 << 10
)

// sysctls of the namespace. The guest has no IPv6: the namespace makes itself no address, and believes no router.
var sysctls = []struct{ name, value string }{
	{"ipv4/ip_forward", "1"},
	{"ipv4/conf/all/accept_redirects", "0"},
	{"ipv4/conf/all/send_redirects", "0"},
	{"ipv6/conf/default/addr_gen_mode", "1"},
	{"ipv6/conf/default/accept_ra", "0"},
	{"ipv6/conf/default/dad_transmits", "0"},
}

// furnish puts into the new namespace what belongs there. The rules come first: no packet is ever without them.
func (p *Plan) furnish() (tap int, inside *rtnl.Socket, err error) {
	for _, one := range sysctls {
		err := os.WriteFile("/proc/sys/net/"+one.name, []byte(one.value), 0)
		if err != nil && !errors.Is(err, os.ErrNotExist) { // a kernel without IPv6
			return 0, nil, err
		}
	}
	if err := p.loadRules(); err != nil {
		return 0, nil, err
	}
	if tap, err = p.openTap(); err != nil {
		return 0, nil, fmt.Errorf("%s: %w", tunDevice, err)
	}
	if inside, err = rtnl.Open(); err != nil {
		return 0, nil, err
	}
	return tap, inside, p.address(inside)
}

func (p *Plan) address(inside *rtnl.Socket) error {
	loopback, err := inside.Index("lo")
	if err != nil {
		return err
	}
	if err := inside.Up(loopback, mostMTU); err != nil {
		return err
	}
	index, err := inside.Index(p.Tap)
	if err != nil {
		return err
	}
	gateway, err := rtnl.ParseAddress(p.Gateway)
	if err != nil {
		return err
	}
	if err := inside.AddAddress(index, gateway, p.Prefix); err != nil {
		return err
	}
	return inside.Up(index, p.MTU)
}

// openTap makes the TAP device. It stays when its descriptor is closed, and goes with the namespace.
func (p *Plan) openTap() (int, error) {
	fd, err := syscall.Open(tunDevice, syscall.O_RDWR|syscall.O_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	request := struct {
		name  [syscall.IFNAMSIZ]byte
		flags uint16
		_     [22]byte
	}{flags: flagTap | flagNoInfo | flagVnetHdr}
	copy(request.name[:], p.Tap)
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), tunSetIff, uintptr(unsafe.Pointer(&request))); errno != 0 {
		return 0, fmt.Errorf("make %s: %w", p.Tap, errno)
	}
	if p.Descriptor {
		return fd, nil
	}
	owner := uintptr(p.Owner)
	if p.Owner < 0 {
		owner = uintptr(os.Getuid())
	}
	for _, setting := range [][2]uintptr{{tunSetOwner, owner}, {tunSetPersist, 1}} {
		if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), setting[0], setting[1]); errno != 0 {
			return 0, fmt.Errorf("give %s to its user: %w", p.Tap, errno)
		}
	}
	return fd, nil
}

func (p *Plan) loadRules() error {
	input, rules, err := os.Pipe()
	if err != nil {
		return err
	}
	output, said, err := os.Pipe()
	if err != nil {
		return err
	}
	process, err := os.StartProcess(p.NFT, []string{p.NFT, "-f", "-"}, &os.ProcAttr{
		Dir:   "/",
		Env:   []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "HOME=/nonexistent"},
		Files: []*os.File{input, said, said},
		Sys:   &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL},
	})
	input.Close()
	said.Close()
	if err != nil {
		return fmt.Errorf("start %s: %w", p.NFT, err)
	}
	go func() {
		_, _ = io.WriteString(rules, p.Rules) // an nft that does not read them fails
		rules.Close()
	}()
	complaint, _ := io.ReadAll(io.LimitReader(output, maxComplaint))
	output.Close()
	state, err := process.Wait()
	if err != nil {
		return err
	}
	if !state.Success() {
		return fmt.Errorf("the rules were refused: %s", strings.TrimSpace(string(complaint)))
	}
	return nil
}

// resolverSockets listen where the guest asks for names. They stay in this namespace, whoever answers.
func (p *Plan) resolverSockets() (udp, tcp int, err error) {
	address, err := rtnl.ParseAddress(p.Gateway)
	if err != nil {
		return 0, 0, err
	}
	at := &syscall.SockaddrInet4{Port: resolverPort, Addr: address}
	if udp, err = bound(syscall.SOCK_DGRAM, at); err != nil {
		return 0, 0, err
	}
	if tcp, err = bound(syscall.SOCK_STREAM, at); err != nil {
		return 0, 0, err
	}
	if err := syscall.Listen(tcp, backlog); err != nil {
		return 0, 0, fmt.Errorf("resolver: %w", err)
	}
	return udp, tcp, nil
}

func bound(kind int, at *syscall.SockaddrInet4) (int, error) {
	fd, err := syscall.Socket(syscall.AF_INET, kind|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0)
	if err == nil {
		err = syscall.Bind(fd, at)
	}
	if err != nil {
		return 0, fmt.Errorf("resolver: %w", err)
	}
	return fd, nil
}
