package identity

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestCheck(t *testing.T) {
	good := Config{Hostname: "box-1.a", MachineID: strings.Repeat("0a", 16), TimeUnixNs: 1, Entropy: make([]byte, 32)}
	if err := good.Check(); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*Config){
		"no name":          func(c *Config) { c.Hostname = "" },
		"a newline":        func(c *Config) { c.Hostname = "a\nb" },
		"a leading dash":   func(c *Config) { c.Hostname = "-a" },
		"a long name":      func(c *Config) { c.Hostname = strings.Repeat("a", 65) },
		"upper case id":    func(c *Config) { c.MachineID = strings.Repeat("0A", 16) },
		"short id":         func(c *Config) { c.MachineID = "0a" },
		"no time":          func(c *Config) { c.TimeUnixNs = 0 },
		"too little":       func(c *Config) { c.Entropy = make([]byte, 31) },
		"too much entropy": func(c *Config) { c.Entropy = make([]byte, 513) },
	} {
		bad := good
		change(&bad)
		if bad.Check() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestHosts(t *testing.T) {
	const own = "127.0.1.1\tbox\n"
	const local = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
	for old, want := range map[string]string{
		"":                    local + own,
		"127.0.0.1 localhost": "127.0.0.1 localhost\n" + own,
		"10.0.0.1 db\n":       "10.0.0.1 db\n" + local + own,
		"127.0.0.1\tlocalhost x\n127.0.1.1 old\n": "127.0.0.1\tlocalhost x\n" + own,
	} {
		if got := withHost(old, "box"); got != want {
			t.Errorf("%q became %q", old, got)
		}
	}
}

func TestNamesReplaceLinksAndSurviveOddImages(t *testing.T) {
	etc := t.TempDir()
	target := filepath.Join(t.TempDir(), "target")
	if err := os.WriteFile(target, []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, filepath.Join(etc, "machine-id")); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(etc, "hostname", "x"), 0o755); err != nil {
		t.Fatal(err)
	}
	place := Place{Etc: etc}
	written := map[string]bool{}
	for name, err := range place.writeNames(Config{Hostname: "box", MachineID: "id"}) {
		written[name] = err == nil
	}
	if !written["machine_id"] || !written["hosts"] || written["hostname"] {
		t.Error(written)
	}
	if data, _ := os.ReadFile(filepath.Join(etc, "machine-id")); string(data) != "id\n" {
		t.Errorf("%q", data)
	}
	if data, _ := os.ReadFile(target); string(data) != "kept" {
		t.Errorf("the link was followed: %q", data)
	}
	left, _ := filepath.Glob(filepath.Join(etc, "*partial*"))
	if len(left) > 0 {
		t.Error("left behind:", left)
	}
}

func TestAFileOfTheSameLengthIsWrittenOver(t *testing.T) {
	path := filepath.Join(t.TempDir(), "name")
	for _, text := range []string{"one\n", "two\n", "three\n", "4\n"} {
		if err := replace(path, text); err != nil {
			t.Fatal(err)
		}
		if data, _ := os.ReadFile(path); string(data) != text {
			t.Errorf("%q became %q", text, data)
		}
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	if overwrite(link, "5\n") {
		t.Error("a link was followed")
	}
}

func TestHostKeysAreRemovedAndNothingElse(t *testing.T) {
	etc := t.TempDir()
	place := Place{Etc: etc}
	if place.removeHostKeys() {
		t.Error("keys where there are none")
	}
	if err := os.Mkdir(etc+"/ssh", 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"ssh_host_rsa_key", "ssh_host_rsa_key.pub", "ssh_host_ed25519_key", "ssh_config", "moduli"} {
		if err := os.WriteFile(etc+"/ssh/"+name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if !place.removeHostKeys() {
		t.Error("no keys found")
	}
	left, _ := filepath.Glob(etc + "/ssh/*")
	if len(left) != 2 {
		t.Error("left:", left)
	}
}

func TestWhatADeviceHadReadyIsReadAway(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hwrng")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	device, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer device.Close()
	if _, err := device.WriteString(strings.Repeat("x", 100)); err != nil {
		t.Fatal(err)
	}
	Place{Random: path}.forgetRandom() // does not wait for more
	if _, err := device.WriteString("fresh"); err != nil {
		t.Fatal(err)
	}
	buffer := make([]byte, 100)
	if n, _ := device.Read(buffer); string(buffer[:n]) != "fresh" {
		t.Errorf("left: %q", buffer[:n])
	}
	Place{Random: path + "-none"}.forgetRandom()
}
