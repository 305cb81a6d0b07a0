// Package identity gives a booted or resumed machine its own clock, randomness and names, so that no two machines
// resumed from one template share them.
package identity

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"unsafe"

	"pyro.dev/agent/nic"
	"pyro.dev/agent/trust"
)

// Config is what the host tells.
type Config struct {
	Hostname   string `json:"hostname"`
	MachineID  string `json:"machine_id"`
	TimeUnixNs int64  `json:"time_unix_ns"`
	Entropy    []byte `json:"entropy"`
	Resumed    bool   `json:"resumed"`
	// Network is there when the machine has one.
	Network *nic.Config `json:"network"`
}

const (
	minEntropy = 32
	maxEntropy = 512
	maxName    = 64 // the kernel's limit
	rootMode   = 0o644
)

// Check says what is wrong with the configuration.
func (c Config) Check() error {
	switch {
	case !validName(c.Hostname):
		return errors.New("hostname is not a host name")
	case !validMachineID(c.MachineID):
		return errors.New("machine_id is not 32 hexadecimal digits")
	case c.TimeUnixNs <= 0:
		return errors.New("time_unix_ns is not a time")
	case len(c.Entropy) < minEntropy || len(c.Entropy) > maxEntropy:
		return fmt.Errorf("entropy is not %d to %d bytes", minEntropy, maxEntropy)
	case c.Network != nil:
		return c.Network.Check()
	}
	return nil
}

func validMachineID(id string) bool {
	_, err := hex.DecodeString(id)
	return err == nil && len(id) == 32 && strings.ToLower(id) == id
}

func validName(name string) bool {
	for _, c := range []byte(name) {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && c != '-' && c != '.' {
			return false
		}
	}
	return name != "" && len(name) <= maxName && name[0] != '-' && name[0] != '.'
}

// Place is where the names are written.
type Place struct {
	Root   string
	Etc    string
	BootID string // the kernel's file
	Own    string // our file, put over the kernel's
	Random string // the random number device
}

// System is the running system.
var System = Place{"/", "/etc", "/proc/sys/kernel/random/boot_id", "/run/.pyro-boot-id", "/dev/hwrng"}

// Apply sets everything and says what. Only a clock, an entropy or a network that cannot be set is an error: names that
// an odd image does not let us write are left out.
func Apply(c Config, at Place) (applied []string, err error) {
	if err := setClock(c.TimeUnixNs); err != nil {
		return nil, fmt.Errorf("clock: %w", err)
	}
	if err := addEntropy(c.Entropy); err != nil {
		return nil, fmt.Errorf("entropy: %w", err)
	}
	applied = []string{"clock", "entropy"}
	note := func(name string, err error) {
		if err == nil {
			applied = append(applied, name)
		}
	}
	note("kernel_hostname", syscall.Sethostname([]byte(c.Hostname)))
	for name, err := range at.writeNames(c) {
		note(name, err)
	}
	if c.Network != nil {
		if err := c.Network.Apply(); err != nil {
			return applied, fmt.Errorf("network: %w", err)
		}
		applied = append(applied, "network")
		note("resolver", replace(at.Etc+"/resolv.conf", c.Network.ResolvConf()))
		if c.Network.Authorities != "" {
			note("authorities", trust.Install(at.Root, c.Network.Authorities))
		}
	}
	if c.Resumed {
		at.forgetRandom()
		note("boot_id", at.renewBootID())
		if at.removeHostKeys() {
			applied = append(applied, "ssh_host_keys")
		}
	}
	return applied, nil
}

func (at Place) writeNames(c Config) func(func(string, error) bool) {
	hosts, _ := os.ReadFile(at.Etc + "/hosts")
	return func(yield func(string, error) bool) {
		_ = yield("hostname", replace(at.Etc+"/hostname", c.Hostname+"\n")) &&
			yield("machine_id", replace(at.Etc+"/machine-id", c.MachineID+"\n")) &&
			yield("hosts", replace(at.Etc+"/hosts", withHost(string(hosts), c.Hostname)))
	}
}

// forgetRandom reads away what the kernel had fetched from its random number device before the snapshot: each machine
// that goes on from there would be given the same. Without a device there is nothing to forget.
func (at Place) forgetRandom() {
	const fetched = 256 // at least: the driver's buffer and the core's, a cache line each
	fd, err := syscall.Open(at.Random, syscall.O_RDONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer syscall.Close(fd)
	buffer := make([]byte, fetched)
	for n := 0; n < fetched; {
		got, err := syscall.Read(fd, buffer)
		if err != nil || got <= 0 {
			return
		}
		n += got
	}
}

// removeHostKeys removes the keys by which an SSH server is recognised: no two machines may share them. Whether any were
// there. The server's package knows how to make new ones (ssh-keygen -A); we only make sure that it has to.
func (at Place) removeHostKeys() bool {
	entries, _ := os.ReadDir(at.Etc + "/ssh")
	removed := false
	for _, entry := range entries {
		name := entry.Name()
		if strings.HasPrefix(name, "ssh_host_") && strings.HasSuffix(strings.TrimSuffix(name, ".pub"), "_key") {
			removed = os.Remove(at.Etc+"/ssh/"+name) == nil || removed
		}
	}
	return removed
}

func setClock(ns int64) error {
	const clockRealtime = 0
	now := syscall.NsecToTimespec(ns)
	_, _, errno := syscall.Syscall(syscall.SYS_CLOCK_SETTIME, clockRealtime, uintptr(unsafe.Pointer(&now)), 0)
	return orNil(errno)
}

// addEntropy credits the bytes and makes the kernel's generator use them at once: a resumed generator would repeat
// what its template's other machines get.
func addEntropy(entropy []byte) error {
	const (
		rndAddEntropy = 0x40085203
		rndReseed     = 0x5207
	)
	fd, err := syscall.Open("/dev/urandom", syscall.O_RDWR|syscall.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(fd)
	var pool struct {
		bits, size int32
		bytes      [maxEntropy]byte
	}
	pool.size = int32(copy(pool.bytes[:], entropy))
	pool.bits = pool.size * 8
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), rndAddEntropy, uintptr(unsafe.Pointer(&pool))); errno != 0 {
		return errno
	}
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), rndReseed, 0)
	return orNil(errno)
}

// renewBootID puts a fresh id over the kernel's, which is the template's.
func (at Place) renewBootID() error {
	var id [16]byte
	if err := random(id[:]); err != nil {
		return err
	}
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80
	h := hex.EncodeToString(id[:])
	text := h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:] + "\n"
	mounted := sameFile(at.Own, at.BootID) // by an earlier resume, as in every template
	if mounted && overwrite(at.Own, text) {
		return nil
	}
	if err := replace(at.Own, text); err != nil {
		return err
	}
	if mounted {
		syscall.Unmount(at.BootID, syscall.MNT_DETACH)
	}
	return syscall.Mount(at.Own, at.BootID, "", syscall.MS_BIND, "")
}

func sameFile(one, other string) bool {
	a, err := os.Stat(one)
	if err != nil {
		return false
	}
	b, err := os.Stat(other)
	return err == nil && os.SameFile(a, b)
}

// withHost returns the text of /etc/hosts with localhost and the machine's name, and all other lines as they were.
func withHost(old, name string) string {
	const own = "127.0.1.1\t"
	var b strings.Builder
	local := false
	for line := range strings.Lines(old) {
		fields := strings.Fields(line)
		if len(fields) > 0 && fields[0] == "127.0.1.1" {
			continue
		}
		local = local || len(fields) > 1 && fields[0] == "127.0.0.1" && fields[1] == "localhost"
		b.WriteString(strings.TrimSuffix(line, "\n") + "\n")
	}
	if !local {
		b.WriteString("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
	}
	return b.String() + own + name + "\n"
}

// replace gives a file new content. Where the image has a symbolic link, the link goes and not its target.
func replace(path, text string) error {
	if overwrite(path, text) {
		return nil
	}
	partial := path + ".pyro-partial"
	os.Remove(partial)
	file, err := os.OpenFile(partial, os.O_WRONLY|os.O_CREATE|os.O_EXCL, rootMode)
	if err != nil {
		return err
	}
	_, err = file.WriteString(text)
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(partial, path)
	}
	if err != nil {
		os.Remove(partial)
	}
	return err
}

// overwrite writes over a file of the same length, as those of a template are. That is a small part of the work that a
// new file and a new name are, and under emulation the code that a resumed machine runs is what its start costs.
func overwrite(path, text string) bool {
	fd, err := syscall.Open(path, syscall.O_WRONLY|syscall.O_NOFOLLOW|syscall.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer syscall.Close(fd)
	var info syscall.Stat_t
	if syscall.Fstat(fd, &info) != nil || info.Mode&syscall.S_IFMT != syscall.S_IFREG || info.Size != int64(len(text)) {
		return false
	}
	n, err := syscall.Pwrite(fd, []byte(text), 0)
	return err == nil && n == len(text)
}

// random reads the kernel's generator; crypto/rand would add 200 KB and a self-test to each start of the agent.
func random(p []byte) error {
	fd, err := syscall.Open("/dev/urandom", syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(fd)
	n, err := syscall.Read(fd, p) // up to 256 bytes come whole, random(4)
	if err == nil && n != len(p) {
		err = io.ErrUnexpectedEOF
	}
	return err
}

func orNil(errno syscall.Errno) error {
	if errno != 0 {
		return errno
	}
	return nil
}
