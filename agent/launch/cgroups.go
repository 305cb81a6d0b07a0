package launch

import (
	"errors"
	"fmt"
	"path"
	"strings"
	"syscall"
	"time"
)

const (
	cgroupMounts  = "/sys/fs/cgroup/"
	cgroupPause   = 10 * time.Millisecond
	cgroupPatient = 100 // pauses: the kernel may take a moment to see that a cgroup is empty
)

func (p *plan) checkCgroups() error {
	for _, directory := range p.Cgroups {
		if !strings.HasPrefix(directory, cgroupMounts) {
			return fmt.Errorf("%.100q is not a cgroup", directory)
		}
		if err := checkDirectoryName(directory); err != nil {
			return err
		}
	}
	return nil
}

// removeCgroups removes the machine's empty cgroups, and says what is left.
func removeCgroups(directories []string) string {
	for _, directory := range directories {
		if err := removeCgroup(directory); err != nil {
			return clip(fmt.Errorf("remove the cgroup %s: %w", path.Dir(directory), err))
		}
	}
	return ""
}

func removeCgroup(directory string) error {
	for range cgroupPatient {
		err := syscall.Rmdir(directory)
		if err == nil || errors.Is(err, syscall.ENOENT) {
			return nil
		}
		if !errors.Is(err, syscall.EBUSY) {
			return err
		}
		time.Sleep(cgroupPause)
	}
	return syscall.EBUSY
}
