// Package resolve is the resolver of one machine: the only one its guest reaches.
//
// With an allow-list it answers the names that were resolved when the machine started, and nothing else: no question
// of the guest leaves the host. Otherwise it asks the host's own resolvers, for the types a client needs, and gives no
// address that the policy closes. There is no cache: the host's resolver has one.
package resolve

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

const (
	maxNames     = 1024
	maxAddresses = 64 // of one name
	maxPrefixes  = 256
	maxUpstreams = 8
	maxName      = 253 // RFC 1035, as text without the last dot
)

// Config is what a resolver is told. Mode is "pinned" (Names and nothing else), "forward" (ask the Upstreams), or
// "learn" (the same, and keep the names on record). Addresses in Closed and not in Opened are not given out. Stats is
// the file that the counts are written to; empty: none.
type Config struct {
	Mode      string                  `json:"mode"`
	Names     map[string][]netip.Addr `json:"names"`
	Upstreams []netip.AddrPort        `json:"upstreams"`
	Closed    []netip.Prefix          `json:"closed"`
	Opened    []netip.Prefix          `json:"opened"`
	Stats     string                  `json:"stats"`
}

// Check says what is wrong with the configuration.
func (c *Config) Check() error {
	switch c.Mode {
	case "pinned":
		if len(c.Upstreams) != 0 {
			return errors.New("a pinned resolver asks nobody")
		}
	case "forward", "learn":
		if len(c.Upstreams) == 0 || len(c.Names) != 0 {
			return errors.New("a forwarding resolver has upstreams and no names")
		}
	default:
		return fmt.Errorf("unknown resolver mode %q", c.Mode)
	}
	if len(c.Names) > maxNames || len(c.Upstreams) > maxUpstreams || len(c.Closed)+len(c.Opened) > maxPrefixes {
		return errors.New("the resolver's lists are too long")
	}
	for name, addresses := range c.Names {
		if name == "" || len(name) > maxName || name != strings.ToLower(name) || len(addresses) > maxAddresses {
			return fmt.Errorf("%.80q cannot be pinned", name)
		}
		if slices.ContainsFunc(addresses, func(a netip.Addr) bool { return !a.Is4() }) {
			return fmt.Errorf("%.80q has an address that is not IPv4", name)
		}
	}
	if slices.ContainsFunc(c.Upstreams, func(u netip.AddrPort) bool { return !u.IsValid() }) {
		return errors.New("an upstream is no address and port")
	}
	return nil
}

// open says whether the guest may know the address.
func (c *Config) open(address netip.Addr) bool {
	within := func(prefix netip.Prefix) bool { return prefix.Contains(address) }
	return slices.ContainsFunc(c.Opened, within) || !slices.ContainsFunc(c.Closed, within)
}
