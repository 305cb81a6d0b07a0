package confine

import (
	"errors"
	"fmt"
	"syscall"
	"unsafe"
)

const (
	prSetPdeathsig  = 1
	prCapbsetDrop   = 24
	prSetNoNewPrivs = 38
	prCapAmbient    = 47
	prAmbientClear  = 4
	capabilities3   = 0x20080522 // _LINUX_CAPABILITY_VERSION_3
	lastCapability  = 63
	capSetpcap      = 8
	capSysAdmin     = 21
)

// dropPrivileges leaves no capability and no way to get one: not by a program file, not by being uid 0.
func dropPrivileges() error {
	if err := prctl(prSetNoNewPrivs, 1); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
	if err := prctl(prCapAmbient, prAmbientClear); err != nil {
		return fmt.Errorf("clear the ambient capabilities: %w", err)
	}
	for capability := uintptr(0); capability <= lastCapability; capability++ {
		err := prctl(prCapbsetDrop, capability)
		if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.EPERM) {
			break // the kernel knows no more, or we have none to begin with
		}
		if err != nil {
			return fmt.Errorf("drop capability %d: %w", capability, err)
		}
	}
	header := struct {
		version uint32
		pid     int32
	}{version: capabilities3}
	var none [2]struct{ effective, permitted, inheritable uint32 }
	_, _, errno := syscall.RawSyscall(syscall.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&none)), 0)
	if errno != 0 {
		return fmt.Errorf("drop the capabilities: %w", errno)
	}
	return nil
}

func prctl(option, value uintptr) error {
	if _, _, errno := syscall.RawSyscall6(syscall.SYS_PRCTL, option, value, 0, 0, 0, 0); errno != 0 {
		return errno
	}
	return nil
}
