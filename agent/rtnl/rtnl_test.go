package rtnl_test

import (
	"bytes"
	"errors"
	"net"
	"strings"
	"syscall"
	"testing"

	"pyro.dev/agent/nstest"
	"pyro.dev/agent/rtnl"
)

func TestMain(m *testing.M) { nstest.Main(m) }

func index(t *testing.T, socket *rtnl.Socket, name string) int {
	t.Helper()
	found, err := socket.Index(name)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func do(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestADeviceIsFoundByItsNameOrNot(t *testing.T) {
	socket := nstest.Alone(t)
	if found := index(t, socket, "lo"); found != 1 {
		t.Errorf("lo is %d", found)
	}
	_, err := socket.Index("none0")
	if !errors.Is(err, syscall.ENODEV) || !strings.Contains(err.Error(), "none0") {
		t.Errorf("a device that is not there: %v", err)
	}
}

func TestAPairHasItsEndsWhereTheyWereWanted(t *testing.T) {
	inside := nstest.Alone(t)
	namespace := nstest.Here(t)
	outside := nstest.Alone(t)
	do(t, outside.AddVeth("here0", "there0", namespace))
	index(t, outside, "here0")
	index(t, inside, "there0") // the socket belongs to the namespace it was opened in
	if _, err := outside.Index("there0"); !errors.Is(err, syscall.ENODEV) {
		t.Errorf("the peer is here, too: %v", err)
	}
	if err := outside.AddVeth("here0", "more0", namespace); !errors.Is(err, syscall.EEXIST) {
		t.Errorf("a name was taken twice: %v", err)
	}
}

func TestADeviceGetsWhatItIsGiven(t *testing.T) {
	socket := nstest.Alone(t)
	nstest.Devices(t, socket, "a0", "b0")
	device, mac := index(t, socket, "a0"), []byte{6, 0, 1, 0x23, 0x45, 0x67}
	for range 2 { // a machine that goes on from a template is told again
		do(t, socket.SetMAC(device, mac))
		do(t, socket.AddAddress(device, [4]byte{172, 29, 1, 2}, 24))
		do(t, socket.Up(device, 1400))
	}
	found, err := net.InterfaceByName("a0")
	do(t, err)
	if !bytes.Equal(found.HardwareAddr, mac) || found.MTU != 1400 || found.Flags&net.FlagUp == 0 {
		t.Errorf("the device is %+v", found)
	}
	addresses, err := found.Addrs()
	do(t, err)
	if text := addresses[0].String(); text != "172.29.1.2/24" {
		t.Errorf("its address is %s", text)
	}
}

func TestARouteIsClaimedByMakingIt(t *testing.T) {
	socket := nstest.Alone(t)
	nstest.Devices(t, socket, "a0", "b0")
	gateway, guest := [4]byte{198, 18, 0, 1}, [4]byte{198, 18, 5, 2}
	device := index(t, socket, "a0")
	do(t, socket.AddAddress(device, gateway, 32))
	do(t, socket.Up(device, 1500))
	do(t, socket.AddHostRoute(device, guest))
	if err := socket.AddHostRoute(device, guest); !errors.Is(err, syscall.EEXIST) {
		t.Errorf("claimed twice: %v", err)
	}
	if found, err := socket.HasDefaultRoute(); found || err != nil {
		t.Errorf("a default route before there is one: %v, %v", found, err)
	}
	do(t, socket.AddDefaultRoute(device, guest))
	do(t, socket.AddDefaultRoute(device, guest))
	if found, err := socket.HasDefaultRoute(); !found || err != nil {
		t.Errorf("no default route: %v, %v", found, err)
	}
}

func TestTheKernelsRefusalIsAnError(t *testing.T) {
	socket := nstest.Alone(t)
	if err := socket.Up(4711, 1500); !errors.Is(err, syscall.ENODEV) {
		t.Errorf("a device that is not there was switched on: %v", err)
	}
	if err := socket.AddDefaultRoute(1, [4]byte{1, 2, 3, 4}); err == nil {
		t.Error("a gateway that is nowhere was taken")
	}
}

func TestOnlyIPv4AddressesAreRead(t *testing.T) {
	if address, err := rtnl.ParseAddress("172.29.1.2"); err != nil || address != [4]byte{172, 29, 1, 2} {
		t.Errorf("%v, %v", address, err)
	}
	for _, text := range []string{"", "1.2.3", "1.2.3.4.5", "::1", "::ffff:1.2.3.4", "256.1.1.1", "1.2.3.4/24", "01.2.3.4", "x"} {
		if _, err := rtnl.ParseAddress(text); err == nil {
			t.Errorf("%q was read", text)
		}
	}
}
