package confine

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

const insideWord = "inside"

// The test binary is also `pyro-agent confine`, and the VMM in the cell, which says what it can see and do.
func TestMain(m *testing.M) {
	switch {
	case os.Args[0] == sealedVMM || slices.Contains(os.Args, insideWord):
		inside()
	case len(os.Args) > 1 && os.Args[1] == "confine":
		os.Exit(Main(os.Args[2:]))
	default:
		os.Exit(m.Run())
	}
}

// report is what a VMM that wants out finds.
type report struct {
	Root    []string
	Devices []string
	Denied  map[string]string // what was tried, and the error; empty: it worked
}

func inside() {
	found := report{Denied: map[string]string{}}
	found.Root, found.Devices = list("/"), list("/dev")
	try := func(name string, act func() error) {
		found.Denied[name] = ""
		if err := act(); err != nil {
			found.Denied[name] = err.Error()
		}
	}
	create := func(name string) func() error { return func() error { return os.WriteFile(name, []byte("x"), 0o600) } }
	try("write to the kernel", func() error { _, err := os.OpenFile("kernel", os.O_WRONLY, 0); return err })
	try("write to the disk", func() error { _, err := os.OpenFile("scratch", os.O_RDWR, 0); return err })
	try("make a file in run", create("run/new"))
	try("make a file in the root", create("new"))
	try("read /etc/passwd", func() error { _, err := os.ReadFile("/etc/passwd"); return err })
	try("read /proc", func() error { _, err := os.ReadFile("/proc/1/status"); return err })
	try("mount", func() error { return syscall.Mount("x", "/run", "tmpfs", 0, "") })
	try("become another user", func() error { return syscall.Setuid(1) })
	try("make a user namespace's mount", func() error { return syscall.Unshare(syscall.CLONE_NEWNS) })
	try("listen in run", func() error { _, err := net.Listen("unix", "run/v.sock"); return err })
	listener := os.Args[len(os.Args)-1]
	try("reach the network", func() error { _, err := net.DialTimeout("tcp", listener, 5*time.Second); return err })
	text, _ := json.Marshal(found)
	fmt.Println(string(text))
}

func list(directory string) []string {
	names := []string{}
	entries, _ := os.ReadDir(directory)
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

// cell runs this binary as the VMM of a cell, and gives its report.
func cell(t *testing.T, kind string, landlock bool, argv ...string) report {
	t.Helper()
	directory := t.TempDir()
	root := filepath.Join(directory, "jail")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"jail", "run"} {
		if err := os.Mkdir(filepath.Join(directory, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"kernel", "scratch"} {
		if err := os.WriteFile(filepath.Join(directory, name), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	argv = append(argv, listener.Addr().String())
	of := func(source, target, access string) bind { return bind{source, target, access} }
	// /dev/null stands for /dev/kvm, which not every host has.
	p := plan{Kind: kind, Root: root, Landlock: landlock, Argv: argv, Binds: []bind{
		of(self, "firecracker", accessExecute), of(filepath.Join(directory, "kernel"), "kernel", accessRead),
		of(filepath.Join(directory, "scratch"), "scratch", accessWrite), of(filepath.Join(directory, "run"), "run", accessWrite),
		of("/dev/null", "dev/kvm", accessDevice), of("/dev/urandom", "dev/urandom", accessDevice),
	}}
	text, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	command := exec.Command(self, "confine", string(text))
	if kind == kindNamespaces {
		command.SysProcAttr = probeAttributes()
	}
	output, err := command.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, err.(*exec.ExitError).Stderr)
	}
	var found report
	if err := json.Unmarshal(output, &found); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	if client := firstClient(t, listener); kind == kindNamespaces && client != "" {
		t.Errorf("the network outside was reached, from %s", client)
	}
	if left := list(root); kind == kindNamespaces && len(left) > 0 {
		t.Errorf("left on the host: %v", left)
	}
	return found
}

// firstClient is who has connected before us; empty: nobody, though it is possible.
func firstClient(t *testing.T, listener net.Listener) string {
	t.Helper()
	ours, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	first, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if first.RemoteAddr().String() == ours.LocalAddr().String() {
		return ""
	}
	return first.RemoteAddr().String()
}

func (r report) check(t *testing.T, allowed ...string) {
	t.Helper()
	for name, denial := range r.Denied {
		if (denial == "") != slices.Contains(allowed, name) {
			t.Errorf("%s: %q", name, denial)
		}
	}
}

func TestACellOfNamespacesHoldsOnlyTheMachine(t *testing.T) {
	if err := tryNamespaces(); err != nil {
		t.Skipf("this host denies user namespaces: %v", err)
	}
	for _, landlock := range []bool{false, landlockVersion() > 0} {
		found := cell(t, kindNamespaces, landlock, sealedVMM)
		found.check(t, "write to the disk", "make a file in run", "listen in run")
		if want := []string{"dev", "firecracker", "kernel", "run", "scratch"}; !slices.Equal(found.Root, want) {
			t.Errorf("root: %v", found.Root)
		}
		if want := []string{"kvm", "urandom"}; !slices.Equal(found.Devices, want) {
			t.Errorf("devices: %v", found.Devices)
		}
	}
}

func TestACellOfLinksIsClosedByLandlock(t *testing.T) {
	if landlockVersion() == 0 {
		t.Skip("this kernel has no Landlock")
	}
	if os.Geteuid() == 0 {
		t.Skip("for ordinary users: root gets the jailer")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	found := cell(t, kindLandlock, true, self, insideWord)
	for _, name := range []string{"write to the kernel", "make a file in the root", "read /etc/passwd", "mount", "become another user"} {
		if found.Denied[name] == "" {
			t.Errorf("%s works", name)
		}
	}
	if landlockVersion() >= 4 && found.Denied["reach the network"] == "" {
		t.Error("the network was reached")
	}
	for _, name := range []string{"write to the disk", "make a file in run"} {
		if found.Denied[name] != "" {
			t.Errorf("%s: %s", name, found.Denied[name])
		}
	}
}

func TestAFailureIsToldAndNothingIsStarted(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, plan := range []string{"", "{}", `{"kind":"landlock","root":"/x","binds":[],"landlock":false,"argv":["/nothing"]}`} {
		output, err := exec.Command(self, "confine", plan).CombinedOutput()
		if err == nil || !strings.HasPrefix(string(output), "pyro-agent confine: ") {
			t.Errorf("%q: %v %s", plan, err, output)
		}
	}
}
