package boot

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

func TestWords(t *testing.T) {
	for line, want := range map[string]Words{
		"":                                         {MaxProcesses: defaultProcesses},
		"quiet pyro.link=serial\n":                 {MaxProcesses: defaultProcesses},
		"pyro.link=vsock pyro.off=restart":         {Vsock: true, Restart: true, MaxProcesses: defaultProcesses},
		"pyro.max_processes=100 pyro.off=off":      {MaxProcesses: 100},
		"pyro.max_processes=-1":                    {MaxProcesses: defaultProcesses},
		"pyro.max_processes=many xpyro.link=vsock": {MaxProcesses: defaultProcesses},
	} {
		if got := parseWords(line); got != want {
			t.Errorf("%q: %+v", line, got)
		}
	}
}

func TestDisksAreKnownByTheirContent(t *testing.T) {
	ext4 := make([]byte, 4096)
	ext4[0x438], ext4[0x439] = 0x53, 0xef
	for want, content := range map[string][]byte{
		"squashfs": append([]byte("hsqs"), make([]byte, 96)...),
		"ext4":     ext4,
		"":         bytes.Repeat([]byte{0}, 4096),
	} {
		path := filepath.Join(t.TempDir(), "disk")
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if got := kindOf(path); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if got := kindOf("/nonexistent"); got != "" {
		t.Error(got)
	}
}

func TestEnsureDirReplacesWhatIsNoDirectory(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink("/etc", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"link", "new", "new"} {
		if err := ensureDir(filepath.Join(dir, name), 0o755); err != nil {
			t.Error(name, err)
		}
		if info, err := os.Lstat(filepath.Join(dir, name)); err != nil || !info.IsDir() {
			t.Error(name, info, err)
		}
	}
}
