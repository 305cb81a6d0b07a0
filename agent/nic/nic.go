// Package nic sets up the guest's one network device.
package nic

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"

	"pyro.dev/agent/rtnl"
	"pyro.dev/agent/trust"
)

const (
	device   = "eth0"
	leastMTU = 576
	mostMTU  = 65535
	quiet    = "/proc/sys/net/ipv6/conf/" + device + "/disable_ipv6"
)

// Config is what the host tells about the network.
type Config struct {
	MAC      string `json:"mac"` // 12 hexadecimal digits
	Address  string `json:"address"`
	Prefix   int    `json:"prefix"`
	Gateway  string `json:"gateway"`
	Resolver string `json:"resolver"`
	MTU      int    `json:"mtu"`
	// Authorities are certificates, in PEM, that the guest trusts besides those of its image.
	Authorities string `json:"authorities"`
}

// Check says what is wrong with it.
func (c *Config) Check() error {
	mac, err := hex.DecodeString(c.MAC)
	if err != nil || len(mac) != 6 || mac[0]&1 != 0 {
		return errors.New("network: mac is not a hardware address")
	}
	for _, address := range []string{c.Address, c.Gateway, c.Resolver} {
		if _, err := rtnl.ParseAddress(address); err != nil {
			return fmt.Errorf("network: %w", err)
		}
	}
	if c.Prefix < 1 || c.Prefix > 30 || c.MTU < leastMTU || c.MTU > mostMTU {
		return errors.New("network: prefix or mtu out of range")
	}
	if err := trust.Check(c.Authorities); err != nil {
		return fmt.Errorf("network: %w", err)
	}
	return nil
}

// ResolvConf is the guest's resolv.conf(5).
func (c *Config) ResolvConf() string {
	return "nameserver " + c.Resolver + "\noptions timeout:3 attempts:2\n"
}

// Apply sets the device up. It may be said again, as it is to a machine that comes from a template.
func (c *Config) Apply() error {
	mac, err := hex.DecodeString(c.MAC)
	if err != nil {
		return err
	}
	kernel, err := rtnl.Open()
	if err != nil {
		return err
	}
	defer kernel.Close()
	index, err := kernel.Index(device)
	if err != nil {
		return err
	}
	if err := kernel.SetMAC(index, mac); err != nil {
		return err
	}
	// There is no IPv6 beyond the device; programs that try it first would wait.
	if err := os.WriteFile(quiet, []byte("1"), 0); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("switch off IPv6: %w", err)
	}
	address, err := rtnl.ParseAddress(c.Address)
	if err != nil {
		return err
	}
	gateway, err := rtnl.ParseAddress(c.Gateway)
	if err != nil {
		return err
	}
	if err := kernel.AddAddress(index, address, c.Prefix); err != nil {
		return err
	}
	if err := kernel.Up(index, c.MTU); err != nil {
		return err
	}
	return kernel.AddDefaultRoute(index, gateway)
}
