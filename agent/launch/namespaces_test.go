package launch

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// own are the namespaces of a jailed machine, with a user namespace where the test does not run as root.
func own(t *testing.T) []string {
	t.Helper()
	names := []string{"mount", "pid", "net", "ipc", "uts"}
	if os.Geteuid() == 0 {
		return names
	}
	try := exec.Command("/bin/true")
	try.SysProcAttr = &syscall.SysProcAttr{}
	(&plan{Namespaces: []string{"user"}}).isolate(try.SysProcAttr)
	if err := try.Run(); err != nil {
		t.Skipf("this host denies user namespaces: %v", err)
	}
	return append(names, "user")
}

func TestAMachineInNamespacesIsTheirFirstProcess(t *testing.T) {
	script := "test $$ = 1 && test $(wc -l </proc/net/dev) -ge 2 && echo ready >&3; exec sleep 1000"
	plan := machinePlan(t, script).with(fields{"namespaces": own(t)})
	r := launch(t, plan)
	started := r.ready()
	for _, name := range []string{"pid", "net", "mnt", "ipc", "uts"} {
		theirs, err := os.Readlink(filepath.Join("/proc", strconv.Itoa(started.PID), "ns", name))
		ours, _ := os.Readlink("/proc/self/ns/" + name)
		if err != nil || theirs == ours {
			t.Errorf("%s: %s, %v", name, theirs, err)
		}
	}
	r.signal(syscall.SIGTERM)
	if end := r.next("exited"); end.Signal != 9 {
		t.Fatalf("%+v", end)
	}
	r.dead()
}

func TestNothingInAPidNamespaceSurvivesTheLauncher(t *testing.T) {
	script := "setsid sleep 1000 & setsid setsid sleep 1000 & echo ready >&3; exec sleep 1000"
	r := launch(t, machinePlan(t, script).with(fields{"namespaces": own(t)}))
	r.ready()
	r.signal(syscall.SIGKILL)
	r.dead()
}

func TestANamedPipeLeadsIntoItsLog(t *testing.T) {
	plan := machinePlan(t, "")
	directory := plan.directory()
	name := func(file string) string { return filepath.Join(directory, file) }
	for _, pipe := range []string{"log.pipe", "metrics.pipe"} {
		if err := syscall.Mkfifo(name(pipe), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	script := "cd " + directory + "; echo ready >&3; echo by name >log.pipe; echo by stderr >&2; echo numbers >metrics.pipe"
	plan.with(fields{
		"argv":       []string{"/bin/sh", "-c", script},
		"log":        fields{"path": name("vmm.log"), "limit": 8192, "pipe": name("log.pipe")},
		"extra_logs": []fields{{"path": name("metrics.log"), "limit": 8192, "pipe": name("metrics.pipe")}},
	})
	r := launch(t, plan)
	r.ready()
	r.next("exited")
	if got := readFile(t, name("vmm.log")); got != "by name\nby stderr\n" {
		t.Errorf("vmm.log: %q", got)
	}
	if got := readFile(t, name("metrics.log")); got != "numbers\n" {
		t.Errorf("metrics.log: %q", got)
	}
}

func TestAPipeThatIsNoFIFOIsRefused(t *testing.T) {
	plan := machinePlan(t, "true")
	file := filepath.Join(plan.directory(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	plan["log"].(fields)["pipe"] = file
	r := launch(t, plan)
	if failed := r.next("failed"); !strings.Contains(failed.Error, "not a FIFO") {
		t.Fatalf("%+v", failed)
	}
}

func TestAMachinesCgroupsAreRemovedAtItsEnd(t *testing.T) {
	parent := filepath.Join(cgroupMounts, "memory")
	if _, err := os.Stat(parent); err != nil {
		parent = strings.TrimSuffix(cgroupMounts, "/")
	}
	cgroup := filepath.Join(parent, machineID)
	if err := os.Mkdir(cgroup, 0o755); err != nil {
		t.Skipf("no cgroup can be made here: %v", err)
	}
	t.Cleanup(func() { os.Remove(cgroup) })
	script := "echo $$ >" + cgroup + "/cgroup.procs; echo ready >&3; exec sleep 1000"
	r := launch(t, machinePlan(t, script).with(fields{"cgroups": []string{cgroup}}))
	r.ready()
	r.signal(syscall.SIGTERM)
	r.next("exited")
	if exists(cgroup) {
		t.Error("the cgroup is left")
	}
}
