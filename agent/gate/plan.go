// Package gate is the host's side of one machine's network: it makes the way out of the machine's network namespace,
// keeps it for as long as the machine lives, and answers the guest's questions for names.
package gate

import (
	"errors"
	"fmt"
	"path"
	"strings"
	"syscall"

	"pyro.dev/agent/resolve"
	"pyro.dev/agent/rtnl"
)

const (
	KindNone  = "none" // no way out, and nobody to ask for names: no gate is needed
	KindVeth  = "veth"
	KindPasta = "pasta"

	// Device is the name of the way out, in the machine's namespace.
	Device = "uplink0"

	maxCandidates = 64
)

// Plan is what a gate is told.
type Plan struct {
	Uplink    Uplink         `json:"uplink"`
	Resolver  resolve.Config `json:"resolver"`
	Directory string         `json:"directory"` // where the gate may keep its files
	NFT       string         `json:"nft"`
	MTU       int            `json:"mtu"`
	UID       int64          `json:"uid"` // who the gate is once the uplink is up; -1: who it is
	GID       int64          `json:"gid"`
}

// Uplink is the way out. Device, Gateway and Candidates are veth's: the name on the host, the address there, and what
// the machine's end may be (the first that is free). Argv is pasta's.
type Uplink struct {
	Kind       string      `json:"kind"`
	Device     string      `json:"device"`
	Gateway    string      `json:"gateway"`
	Candidates []Candidate `json:"candidates"`
	Argv       []string    `json:"argv"`
}

// Candidate is an address, and the host's table for it: one line, which is one command of nft.
type Candidate struct {
	Address   string `json:"address"`
	HostRules string `json:"host_rules"`
}

// Check says what is wrong with it.
func (u *Uplink) Check() error {
	switch u.Kind {
	case KindNone:
		return nil
	case KindPasta:
		if len(u.Argv) == 0 || !path.IsAbs(u.Argv[0]) {
			return errors.New("uplink: argv must start with an absolute path")
		}
		return nil
	case KindVeth:
	default:
		return fmt.Errorf("uplink: unknown kind %.40q", u.Kind)
	}
	if u.Device == "" || len(u.Device) >= syscall.IFNAMSIZ || strings.ContainsAny(u.Device, "/ \x00") {
		return fmt.Errorf("uplink: %.40q is not the name of a device", u.Device)
	}
	if len(u.Candidates) == 0 || len(u.Candidates) > maxCandidates {
		return errors.New("uplink: candidates are needed")
	}
	for _, candidate := range u.Candidates {
		if _, err := rtnl.ParseAddress(candidate.Address); err != nil {
			return fmt.Errorf("uplink: %w", err)
		}
		if candidate.HostRules == "" || strings.Contains(candidate.HostRules, "\n") {
			return errors.New("uplink: host_rules must be one line")
		}
	}
	if _, err := rtnl.ParseAddress(u.Gateway); err != nil {
		return fmt.Errorf("uplink: %w", err)
	}
	return nil
}
