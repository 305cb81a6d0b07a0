// Package netns is the network of one machine as seen from inside: the step between the launcher and the VMM that makes
// the machine's network namespace, with its TAP device and its rules, before anything of the machine runs.
package netns

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"strings"
	"syscall"

	"pyro.dev/agent/gate"
	"pyro.dev/agent/resolve"
	"pyro.dev/agent/rtnl"
)

const (
	leastMTU = 576
	mostMTU  = 65521
)

// Plan is the network of one machine.
type Plan struct {
	Tap     string `json:"tap"`
	Guest   string `json:"guest"`
	Gateway string `json:"gateway"`
	Prefix  int    `json:"prefix"`
	MTU     int    `json:"mtu"`
	Rules   string `json:"rules"`
	NFT     string `json:"nft"`
	// Owner is the user who may open the TAP device by its name; -1: ourselves.
	Owner int64 `json:"owner"`
	// Descriptor: the VMM gets the TAP device as its last descriptor, and no privilege is left to it. Otherwise it opens
	// the device by its name, and what we become drops the privileges.
	Descriptor bool            `json:"descriptor"`
	Directory  string          `json:"directory"`
	GateUID    int64           `json:"gate_uid"`
	GateGID    int64           `json:"gate_gid"`
	Uplink     *gate.Uplink    `json:"uplink"`
	Resolver   *resolve.Config `json:"resolver"`
}

// Parse reads and checks it. An unknown key, or one that is missing, is an error.
func Parse(text []byte) (*Plan, error) {
	p := &Plan{Owner: -2, GateUID: -2, GateGID: -2}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(p); err != nil {
		return nil, fmt.Errorf("network: %w", err)
	}
	if err := p.check(); err != nil {
		return nil, fmt.Errorf("network: %w", err)
	}
	return p, nil
}

func (p *Plan) check() error {
	if p.Tap == "" || len(p.Tap) >= syscall.IFNAMSIZ || strings.ContainsAny(p.Tap, "/ \x00") {
		return fmt.Errorf("%.40q is not the name of a device", p.Tap)
	}
	for _, address := range []string{p.Guest, p.Gateway} {
		if _, err := rtnl.ParseAddress(address); err != nil {
			return err
		}
	}
	if p.Prefix < 1 || p.Prefix > 30 || p.MTU < leastMTU || p.MTU > mostMTU {
		return errors.New("prefix or mtu out of range")
	}
	if p.Rules == "" || !path.IsAbs(p.NFT) || !path.IsAbs(p.Directory) {
		return errors.New("rules, nft and directory are needed")
	}
	if p.Owner < -1 || p.GateUID < -1 || p.GateGID < -1 || (p.GateUID < 0) != (p.GateGID < 0) {
		return errors.New("owner, gate_uid and gate_gid are needed")
	}
	if p.Uplink == nil || p.Resolver == nil {
		return errors.New("uplink and resolver are needed")
	}
	if err := p.Resolver.Check(); err != nil {
		return err
	}
	return p.Uplink.Check()
}

// Stage is what the launcher tells the step it starts in place of the VMM.
type Stage struct {
	Network json.RawMessage `json:"network"`
	Argv    []string        `json:"argv"` // what the step becomes
	UID     int64           `json:"uid"`  // and as whom; -1: as whom it was started
	GID     int64           `json:"gid"`
	Groups  []int           `json:"groups"`
}
