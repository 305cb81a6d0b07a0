// Package rtnl speaks the little of rtnetlink(7) that the network of a machine needs, on the host and in the guest:
// devices, addresses, routes. It needs no program, so that a guest can use it whatever its environment has.
package rtnl

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"syscall"
)

const (
	bufferSize  = 1 << 16
	attributeOf = syscall.SizeofRtAttr
	align       = 4

	infoKind    = 1 // IFLA_INFO_KIND
	infoData    = 2 // IFLA_INFO_DATA
	vethPeer    = 1 // VETH_INFO_PEER
	linkInfo    = 18
	linkNetNSFD = 28
	nested      = 1 << 15
	noPrefix    = 0x200 // IFA_F_NOPREFIXROUTE: the address brings no route with it
	addressFlag = 8     // IFA_FLAGS
)

var order = binary.NativeEndian

// Socket is a connection to the kernel about one network namespace: the one it was opened in, whoever uses it later.
type Socket struct {
	fd       int
	sequence uint32
}

// Open opens one for the namespace of this thread.
func Open() (*Socket, error) {
	fd, err := syscall.Socket(syscall.AF_NETLINK, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, syscall.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("rtnetlink: %w", err)
	}
	if err := syscall.Bind(fd, &syscall.SockaddrNetlink{Family: syscall.AF_NETLINK}); err != nil {
		syscall.Close(fd)
		return nil, fmt.Errorf("rtnetlink: %w", err)
	}
	return From(fd), nil
}

// From takes over the descriptor of one that was opened elsewhere.
func From(fd int) *Socket { return &Socket{fd: fd} }

// FD is its descriptor.
func (s *Socket) FD() int { return s.fd }

// Close closes it.
func (s *Socket) Close() { syscall.Close(s.fd) }

// Index finds a device by its name; syscall.ENODEV when there is none.
func (s *Socket) Index(name string) (int, error) {
	index := 0
	message := request(syscall.RTM_GETLINK, 0, link(0, 0, 0), attribute(syscall.IFLA_IFNAME, text(name)))
	err := s.exchange(message, func(header syscall.NlMsghdr, body []byte) {
		if header.Type == syscall.RTM_NEWLINK && len(body) >= syscall.SizeofIfInfomsg {
			index = int(order.Uint32(body[4:]))
		}
	})
	if err == nil && index == 0 {
		err = syscall.ENODEV
	}
	if err != nil {
		return 0, fmt.Errorf("device %s: %w", name, err)
	}
	return index, nil
}

// Up switches a device on, with an MTU in bytes.
func (s *Socket) Up(index, mtu int) error {
	return s.do("device up", request(syscall.RTM_NEWLINK, 0, link(index, syscall.IFF_UP, syscall.IFF_UP),
		attribute(syscall.IFLA_MTU, word(mtu))))
}

// SetMAC gives a device its hardware address; it has to be off.
func (s *Socket) SetMAC(index int, mac []byte) error {
	return s.do("hardware address", request(syscall.RTM_NEWLINK, 0, link(index, 0, syscall.IFF_UP),
		attribute(syscall.IFLA_ADDRESS, mac)))
}

// AddVeth makes a pair of devices: one here, its peer in the namespace of a descriptor.
func (s *Socket) AddVeth(name, peer string, namespace int) error {
	other := append(link(0, 0, 0), attribute(syscall.IFLA_IFNAME, text(peer))...)
	other = append(other, attribute(linkNetNSFD, word(namespace))...)
	info := append(attribute(infoKind, text("veth")), attribute(infoData|nested, attribute(vethPeer|nested, other))...)
	return s.do("veth", request(syscall.RTM_NEWLINK, syscall.NLM_F_CREATE|syscall.NLM_F_EXCL, link(0, 0, 0),
		attribute(syscall.IFLA_IFNAME, text(name)), attribute(linkInfo|nested, info)))
}

// AddAddress gives a device an IPv4 address. With a prefix of 32 bits no route comes with it.
func (s *Socket) AddAddress(index int, address [4]byte, prefix int) error {
	header := []byte{syscall.AF_INET, byte(prefix), 0, syscall.RT_SCOPE_UNIVERSE, 0, 0, 0, 0}
	order.PutUint32(header[4:], uint32(index))
	parts := [][]byte{attribute(syscall.IFA_LOCAL, address[:]), attribute(syscall.IFA_ADDRESS, address[:])}
	if prefix == 32 {
		parts = append(parts, attribute(addressFlag, word(noPrefix)))
	}
	return s.do("address", request(syscall.RTM_NEWADDR, syscall.NLM_F_CREATE|syscall.NLM_F_REPLACE, header, parts...))
}

// AddHostRoute leads one address to a device; syscall.EEXIST when something else leads it somewhere already.
func (s *Socket) AddHostRoute(index int, address [4]byte) error {
	return s.do("route", request(syscall.RTM_NEWROUTE, syscall.NLM_F_CREATE|syscall.NLM_F_EXCL,
		route(32, syscall.RT_SCOPE_LINK), attribute(syscall.RTA_DST, address[:]),
		attribute(syscall.RTA_OIF, word(index))))
}

// AddDefaultRoute leads everything else through a gateway.
func (s *Socket) AddDefaultRoute(index int, gateway [4]byte) error {
	return s.do("default route", request(syscall.RTM_NEWROUTE, syscall.NLM_F_CREATE|syscall.NLM_F_REPLACE,
		route(0, syscall.RT_SCOPE_UNIVERSE), attribute(syscall.RTA_GATEWAY, gateway[:]),
		attribute(syscall.RTA_OIF, word(index))))
}

// HasDefaultRoute tells whether everything else leads somewhere.
func (s *Socket) HasDefaultRoute() (bool, error) {
	found := false
	message := request(syscall.RTM_GETROUTE, syscall.NLM_F_DUMP, route(0, 0))
	err := s.exchange(message, func(header syscall.NlMsghdr, body []byte) {
		if header.Type == syscall.RTM_NEWROUTE && len(body) > 1 && body[0] == syscall.AF_INET && body[1] == 0 {
			found = true
		}
	})
	return found, err
}

func (s *Socket) do(what string, message []byte) error {
	if err := s.exchange(message, func(syscall.NlMsghdr, []byte) {}); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// exchange sends one request and reads what it brings, up to the acknowledgement.
func (s *Socket) exchange(message []byte, take func(syscall.NlMsghdr, []byte)) error {
	s.sequence++
	order.PutUint32(message[8:], s.sequence)
	if err := syscall.Sendto(s.fd, message, 0, &syscall.SockaddrNetlink{Family: syscall.AF_NETLINK}); err != nil {
		return err
	}
	buffer := make([]byte, bufferSize)
	for {
		size, _, err := syscall.Recvfrom(s.fd, buffer, 0)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		messages, err := syscall.ParseNetlinkMessage(buffer[:size])
		if err != nil {
			return err
		}
		for _, m := range messages {
			if m.Header.Seq != s.sequence {
				continue
			}
			switch m.Header.Type {
			case syscall.NLMSG_DONE:
				return nil
			case syscall.NLMSG_ERROR:
				return answered(m.Data)
			default:
				take(m.Header, m.Data)
			}
		}
	}
}

func answered(data []byte) error {
	if len(data) < 4 {
		return syscall.EPROTO
	}
	if code := int32(order.Uint32(data)); code != 0 {
		return syscall.Errno(-code)
	}
	return nil
}

func request(kind, flags uint16, header []byte, attributes ...[]byte) []byte {
	flags |= syscall.NLM_F_REQUEST
	if flags&syscall.NLM_F_DUMP != syscall.NLM_F_DUMP {
		flags |= syscall.NLM_F_ACK
	}
	message := append(make([]byte, syscall.NLMSG_HDRLEN), header...)
	for _, one := range attributes {
		message = append(message, one...)
	}
	order.PutUint32(message, uint32(len(message)))
	order.PutUint16(message[4:], kind)
	order.PutUint16(message[6:], flags)
	return message
}

func attribute(kind uint16, value []byte) []byte {
	size := attributeOf + len(value)
	encoded := make([]byte, (size+align-1)&^(align-1))
	order.PutUint16(encoded, uint16(size))
	order.PutUint16(encoded[2:], kind)
	copy(encoded[attributeOf:], value)
	return encoded
}

func link(index int, flags, change uint32) []byte {
	header := make([]byte, syscall.SizeofIfInfomsg)
	order.PutUint32(header[4:], uint32(index))
	order.PutUint32(header[8:], flags)
	order.PutUint32(header[12:], change)
	return header
}

func route(prefix, scope byte) []byte {
	header := make([]byte, syscall.SizeofRtMsg)
	header[0], header[1] = syscall.AF_INET, prefix
	header[4], header[5] = syscall.RT_TABLE_MAIN, syscall.RTPROT_STATIC
	header[6], header[7] = scope, syscall.RTN_UNICAST
	return header
}

func text(value string) []byte { return append([]byte(value), 0) }

func word(value int) []byte { return order.AppendUint32(nil, uint32(value)) }

// ParseAddress reads an IPv4 address.
func ParseAddress(text string) ([4]byte, error) {
	address, err := netip.ParseAddr(text)
	if err != nil || !address.Is4() {
		return [4]byte{}, fmt.Errorf("%.40q is not an IPv4 address", text)
	}
	return address.As4(), nil
}
