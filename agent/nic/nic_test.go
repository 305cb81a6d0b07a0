package nic

import (
	"net"
	"strings"
	"testing"

	"pyro.dev/agent/nstest"
)

func TestMain(m *testing.M) { nstest.Main(m) }

func good() Config {
	return Config{
		MAC: "060001234567", Address: "172.29.1.2", Prefix: 24, Gateway: "172.29.1.1", Resolver: "172.29.1.1", MTU: 1400,
	}
}

func TestOnlyAWholeConfigurationIsTaken(t *testing.T) {
	cases := []struct {
		name   string
		change func(*Config)
		want   string
	}{
		{"as it should be", func(*Config) {}, ""},
		{"a short hardware address", func(c *Config) { c.MAC = "0600012345" }, "mac"},
		{"no hardware address", func(c *Config) { c.MAC = "06000123456x" }, "mac"},
		{"a group's hardware address", func(c *Config) { c.MAC = "010001234567" }, "mac"},
		{"IPv6", func(c *Config) { c.Address = "fd00::2" }, "IPv4"},
		{"no gateway", func(c *Config) { c.Gateway = "" }, "IPv4"},
		{"a resolver by name", func(c *Config) { c.Resolver = "resolver.example" }, "IPv4"},
		{"no network but itself", func(c *Config) { c.Prefix = 32 }, "prefix"},
		{"a tiny MTU", func(c *Config) { c.MTU = 68 }, "mtu"},
		{"authorities that are none", func(c *Config) { c.Authorities = "x" }, "authorities"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			config := good()
			c.change(&config)
			err := config.Check()
			if (c.want == "") != (err == nil) || (err != nil && !strings.Contains(err.Error(), c.want)) {
				t.Fatalf("want %q, got %v", c.want, err)
			}
		})
	}
}

func TestTheGatewayIsTheResolver(t *testing.T) {
	config := good()
	if text := config.ResolvConf(); !strings.HasPrefix(text, "nameserver 172.29.1.1\n") {
		t.Errorf("resolv.conf is %q", text)
	}
}

func TestTheDeviceIsSetUpAndAgainForAnotherMachine(t *testing.T) {
	socket := nstest.Alone(t)
	config := good()
	if err := config.Apply(); err == nil || !strings.Contains(err.Error(), device) {
		t.Errorf("without a device: %v", err)
	}
	nstest.Devices(t, socket, device, "tap0")
	peer, err := socket.Index("tap0")
	if err != nil {
		t.Fatal(err)
	}
	if err := socket.Up(peer, 1500); err != nil {
		t.Fatal(err)
	}
	for _, mac := range []string{"060001234567", "0600abcdef01"} {
		config.MAC = mac
		if err := config.Apply(); err != nil {
			t.Fatal(err)
		}
		found, err := net.InterfaceByName(device)
		if err != nil {
			t.Fatal(err)
		}
		if text := strings.ReplaceAll(found.HardwareAddr.String(), ":", ""); text != mac || found.MTU != 1400 {
			t.Errorf("the device is %+v", found)
		}
	}
	if ready, err := socket.HasDefaultRoute(); !ready || err != nil {
		t.Errorf("no default route: %v", err)
	}
}
