package launch

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"syscall"
)

// A descriptor without FD_CLOEXEC was inherited: the runtime opens its own with the flag set.
func inherited(fd int) bool {
	flags, _, errno := syscall.RawSyscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_GETFD, 0)
	return errno == 0 && flags&syscall.FD_CLOEXEC == 0
}

// adopt takes over the descriptors that the plan names and closes every other inherited one: a
// pipe or a lock held open by a supervisor that nobody remembers blocks its other users for ever.
func adopt(p *plan) error {
	ours := append([]int{p.StatusFD}, p.Files...)
	for _, fd := range ours {
		if !inherited(fd) {
			return fmt.Errorf("descriptor %d was not inherited", fd)
		}
	}
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, entry := range open {
		fd, err := strconv.Atoi(entry.Name())
		if err != nil || fd < firstFile || !inherited(fd) {
			continue
		}
		if slices.Contains(ours, fd) {
			syscall.CloseOnExec(fd)
		} else {
			syscall.Close(fd)
		}
	}
	return nil
}

// detach points the launcher's own standard streams at /dev/null, for the same reason, and
// returns a descriptor of it.
func detach() (int, error) {
	null, err := syscall.Open(os.DevNull, syscall.O_RDWR|syscall.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", os.DevNull, err)
	}
	for fd := range firstFile {
		if err := syscall.Dup3(null, fd, 0); err != nil {
			return -1, err
		}
	}
	return null, nil
}

func closeAll(fds ...int) {
	for _, fd := range fds {
		syscall.Close(fd)
	}
}
