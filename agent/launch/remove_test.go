package launch

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func openReadOnly(path string) (int, error) {
	return syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
}

// tree makes a machine directory with some depth and more entries than one batch.
func tree(t *testing.T) string {
	t.Helper()
	directory := filepath.Join(t.TempDir(), machineID)
	if err := os.MkdirAll(filepath.Join(directory, "a", "b", "c"), 0o700); err != nil {
		t.Fatal(err)
	}
	for i := range 3 * nameBatch {
		if err := os.WriteFile(filepath.Join(directory, "a", fmt.Sprint(i)), nil, 0o400); err != nil {
			t.Fatal(err)
		}
	}
	return directory
}

func TestRemovalTakesTheWholeTreeAndFollowsNoLink(t *testing.T) {
	directory, outside := tree(t), tree(t)
	for name, target := range map[string]string{"link": outside, "a/b/link": outside, "dangling": "/no/such"} {
		if err := os.Symlink(target, filepath.Join(directory, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := removeMachineDir(directory); err != nil {
		t.Fatal(err)
	}
	if exists(directory) || !exists(filepath.Join(outside, "a", "0")) {
		t.Fatal("the tree must go, what links point to must stay")
	}
}

func TestRemovalRefusesWhatIsNoMachineDirectory(t *testing.T) {
	cases := []struct {
		name string
		make func(t *testing.T, real string) string
		want string
	}{
		{"a symbolic link", func(t *testing.T, real string) string {
			link := filepath.Join(t.TempDir(), "ba9876543210")
			if err := os.Symlink(real, link); err != nil {
				t.Fatal(err)
			}
			return link
		}, "symbolic links"},
		{"a bad name", func(t *testing.T, real string) string {
			other := filepath.Join(filepath.Dir(real), "project")
			if err := os.Rename(real, other); err != nil {
				t.Fatal(err)
			}
			return other
		}, "not the absolute path"},
		{"a relative path", func(*testing.T, string) string { return machineID }, "not the absolute path"},
		{"dots", func(_ *testing.T, real string) string { return real + "/../" + machineID }, "not the absolute path"},
		{"a file", func(t *testing.T, real string) string {
			file := filepath.Join(filepath.Dir(real), "aaaaaaaaaaaa")
			if err := os.WriteFile(file, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			return file
		}, "not a directory"},
		{"somebody else's", func(t *testing.T, real string) string {
			if os.Geteuid() != 0 {
				t.Skip("needs root")
			}
			if err := os.Chown(real, 54321, 54321); err != nil {
				t.Fatal(err)
			}
			return real
		}, "belongs to uid 54321"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			path := c.make(t, tree(t))
			if err := removeMachineDir(path); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("want %q, got %v", c.want, err)
			}
			if filepath.IsAbs(path) && !exists(path) {
				t.Fatal("it was removed")
			}
		})
	}
}

func TestRemovalStopsAtAMount(t *testing.T) {
	directory, outside := tree(t), tree(t)
	point := filepath.Join(directory, "a", "b")
	if err := syscall.Mount(outside, point, "", syscall.MS_BIND, ""); err != nil {
		t.Skip("needs the right to mount:", err)
	}
	err := removeMachineDir(directory)
	if err := syscall.Unmount(point, 0); err != nil {
		t.Fatal(err)
	}
	if err == nil || !exists(filepath.Join(outside, "a", "0")) {
		t.Fatalf("a bind mount was emptied: %v", err)
	}
	if exists(filepath.Join(directory, "a", "0")) {
		t.Fatal("what can go must go")
	}
}

func TestRemovalBoundsItsDepth(t *testing.T) {
	directory := filepath.Join(t.TempDir(), machineID)
	if err := os.MkdirAll(directory+strings.Repeat("/d", maxDepth+2), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := removeMachineDir(directory); err == nil || !strings.Contains(err.Error(), "levels") {
		t.Fatalf("got %v", err)
	}
}
