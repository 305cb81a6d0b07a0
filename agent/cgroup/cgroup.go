// Package cgroup keeps all jobs in one limited cgroup and each job in a child of it.
package cgroup

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// Group is a directory of cgroup v2.
type Group struct{ path string }

// At names an existing group, or one about to be made.
func At(path string) *Group { return &Group{path} }

// Unlimited stands for no limit of memory.
const Unlimited = -1

// Limits of all jobs together.
type Limits struct {
	Processes   int
	MemoryBytes int64
}

// SetUp makes the jobs' group below the root of a freshly mounted cgroup2. Its cpu weight as one whole against the
// agent's threads is what keeps the agent responsive under a fork bomb.
func SetUp(root, name string, limits Limits) (*Group, error) {
	top := At(root)
	jobs := At(root + "/" + name)
	if err := os.Mkdir(jobs.path, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	if err := top.Set("cgroup.subtree_control", "+cpu +memory +pids"); err != nil {
		return nil, err
	}
	if err := jobs.Set("cgroup.subtree_control", "+cpu +memory +pids"); err != nil {
		return nil, err
	}
	if err := jobs.Set("pids.max", strconv.Itoa(limits.Processes)); err != nil {
		return nil, err
	}
	if limits.MemoryBytes == Unlimited {
		return jobs, nil
	}
	return jobs, jobs.Set("memory.max", strconv.FormatInt(limits.MemoryBytes, 10))
}

// Make makes a child.
func (g *Group) Make(name string) (*Group, error) {
	child := At(g.path + "/" + name)
	return child, os.Mkdir(child.path, 0o755)
}

// Open returns a descriptor for CLONE_INTO_CGROUP.
func (g *Group) Open() (int, error) {
	const oPath = 0x200000
	return syscall.Open(g.path, oPath|syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
}

// Remove removes an empty group; it fails while a process lives in it.
func (g *Group) Remove() error { return syscall.Rmdir(g.path) }

// Set writes a control file.
func (g *Group) Set(file, value string) error {
	fd, err := syscall.Open(g.path+"/"+file, syscall.O_WRONLY|syscall.O_CLOEXEC, 0)
	if err == nil {
		_, err = syscall.Write(fd, []byte(value))
		syscall.Close(fd)
	}
	if err != nil {
		return &os.PathError{Op: "write", Path: g.path + "/" + file, Err: err}
	}
	return nil
}

// Event reads one counter of a flat keyed file such as memory.events; 0 when it is not there.
func (g *Group) Event(file, key string) int64 {
	var buf [1024]byte
	for line := range strings.SplitSeq(g.read(file, buf[:]), "\n") {
		if name, value, _ := strings.Cut(line, " "); name == key {
			n, _ := strconv.ParseInt(value, 10, 64)
			return n
		}
	}
	return 0
}

// Value reads a file with one number; 0 when it is not there.
func (g *Group) Value(file string) int64 {
	var buf [32]byte
	n, _ := strconv.ParseInt(strings.TrimSpace(g.read(file, buf[:])), 10, 64)
	return n
}

func (g *Group) read(file string, buf []byte) string {
	fd, err := syscall.Open(g.path+"/"+file, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return ""
	}
	defer syscall.Close(fd)
	n, _ := syscall.Read(fd, buf)
	return string(buf[:max(n, 0)])
}

// Signal signals every process that is in the group now, and says whether there was one.
func (g *Group) Signal(sig syscall.Signal) bool {
	data, err := os.ReadFile(g.path + "/cgroup.procs")
	if err != nil {
		return false
	}
	reached := false
	for _, word := range strings.Fields(string(data)) {
		// 0 would be a process outside our pid namespace, and kill(0) our own group.
		if pid, err := strconv.Atoi(word); err == nil && pid > 1 && syscall.Kill(pid, sig) == nil {
			reached = true
		}
	}
	return reached
}

// Kill kills every process in the group, also those that are being forked.
func (g *Group) Kill() error { return g.Set("cgroup.kill", "1") }

// Has says whether the group has such a file.
func (g *Group) Has(file string) bool {
	var st syscall.Stat_t
	return syscall.Stat(g.path+"/"+file, &st) == nil
}
