// Package boot turns the kernel's first program, running from the initramfs, into the init of the environment.
package boot

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"pyro.dev/agent/cgroup"
	"pyro.dev/agent/machine"
)

const (
	cgroupRoot = "/sys/fs/cgroup"
	// reserved is kept from the jobs, beyond what kernel and agent use at the end of the boot.
	reservedKiB = 32 << 10
	// leastMemoryKiB is left to the jobs of the smallest machine.
	leastMemoryKiB = 16 << 10
	// defaultProcesses is more than a parallel build takes, and few enough for a fork bomb to meet it soon.
	defaultProcesses = 1024

	softFiles = 8192 // also ours: each job takes a few
	hardFiles = 524288
)

// Machine is what a finished boot leaves.
type Machine struct {
	Words   Words
	Jobs    *cgroup.Group
	StageMs map[string]int64
}

// Run boots. The stages are what `info` reports as boot_ms; "kernel" is the time until we were started. With an error the
// machine is as far as the boot came.
func Run() (*Machine, error) {
	m := &Machine{StageMs: make(map[string]int64, 8)}
	var disks disks
	last := time.Duration(0)
	for _, stage := range []struct {
		name string
		run  func() error
	}{
		{"kernel", func() error { return nil }},
		{"mounts", mountKernel},
		{"words", func() (err error) { m.Words, err = readWords(); return err }},
		{"modules", loadModules},
		{"disks", func() (err error) { disks, err = waitForDisks(); return err }},
		{"root", func() error { return enterRoot(disks) }},
		{"runtime", prepare},
		{"cgroups", func() (err error) { m.Jobs, err = limitJobs(m.Words.MaxProcesses); return err }},
	} {
		if err := stage.run(); err != nil {
			return m, err
		}
		now := machine.Uptime()
		m.StageMs[stage.name] = (now - last).Milliseconds()
		last = now
	}
	m.StageMs["total"] = last.Milliseconds()
	return m, nil
}

// limitJobs makes the cgroup of all jobs. It leaves the kernel and us the threads to go on when jobs use all of theirs.
// We need no oom_score_adj: the kernel never picks PID 1, and what a job inherits from us stays 0.
func limitJobs(processes int) (*cgroup.Group, error) {
	memory := int64(cgroup.Unlimited)
	if !endThrashing() {
		memory = max(machine.Memory().Available-reservedKiB, leastMemoryKiB) << 10
	}
	if most := machine.Number("/proc/sys/kernel/threads-max") * 3 / 4; most > 0 {
		processes = min(processes, int(most))
	}
	return cgroup.SetUp(cgroupRoot, "pyro", cgroup.Limits{Processes: processes, MemoryBytes: memory})
}

// endThrashing lets the kernel end the largest program when memory is so short that it would drop pages used within the
// last fifth of a second (Documentation/admin-guide/mm/multigen_lru.rst). Were it a second, a program that only writes
// to a slow disk would be taken for a hog now and then: all that could be dropped is as young as that. Without the rule
// a guest that eats its memory does not die: it reads its programs from the disk again and again, for minutes. The limit
// of a cgroup has no such rule, so there is none then; without the kernel's multi-generational LRU the answer is false
// and the limit is what we have.
func endThrashing() bool {
	for file, value := range map[string]string{"enabled": "y", "min_ttl_ms": "200"} {
		if os.WriteFile("/sys/kernel/mm/lru_gen/"+file, []byte(value), 0) != nil {
			return false
		}
	}
	return true
}

// prepare is what programs expect of a running system besides its files.
func prepare() error {
	if err := mountRuntime(); err != nil {
		return err
	}
	syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: softFiles, Max: hardFiles})
	os.WriteFile("/proc/self/comm", []byte("pyro-agent"), 0)
	if err := loopbackUp(); err != nil {
		return fmt.Errorf("loopback: %w", err)
	}
	return nil
}

// Words are ours of the kernel's command line.
type Words struct {
	Vsock        bool
	MaxProcesses int
	Restart      bool // how the machine goes off
}

func readWords() (Words, error) {
	line, err := os.ReadFile("/proc/cmdline")
	return parseWords(string(line)), err
}

func parseWords(line string) Words {
	w := Words{MaxProcesses: defaultProcesses}
	for _, word := range strings.Fields(line) {
		key, value, _ := strings.Cut(word, "=")
		switch key {
		case "pyro.link":
			w.Vsock = value == "vsock"
		case "pyro.off":
			w.Restart = value == "restart"
		case "pyro.max_processes":
			if n, err := strconv.Atoi(value); err == nil && n > 0 {
				w.MaxProcesses = n
			}
		}
	}
	return w
}
