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

// What capset(2) is told. Not on a stack, which may move while all threads are made to say it.
var (
	capHeader = struct {
		version uint32
		pid     int32
	}{version: capabilities3}
	noCaps [2]struct{ effective, permitted, inheritable uint32 }
)

// call makes a system call: of this thread, or of all.
type call func(trap, a1, a2, a3, a4, a5, a6 uintptr) (r1, r2 uintptr, err syscall.Errno)

// DropEverywhere is for a program that goes on: no thread of it keeps a privilege.
func DropEverywhere() error { return drop(syscall.AllThreadsSyscall6) }

// dropPrivileges is for a thread that is about to become another program.
func dropPrivileges() error { return drop(syscall.RawSyscall6) }

// drop leaves no capability and no way to get one: not by a program file, not by being uid 0.
func drop(how call) error {
	prctl := func(option, value uintptr) error {
		if _, _, errno := how(syscall.SYS_PRCTL, option, value, 0, 0, 0, 0); errno != 0 {
			return errno
		}
		return nil
	}
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
	_, _, errno := how(syscall.SYS_CAPSET, uintptr(unsafe.Pointer(&capHeader)), uintptr(unsafe.Pointer(&noCaps)), 0, 0, 0, 0)
	if errno != 0 {
		return fmt.Errorf("drop the capabilities: %w", errno)
	}
	return nil
}

// BecomeUser changes who this process is, and has it end with its parent all the same.
func BecomeUser(uid, gid int, groups []int) error {
	if err := syscall.Setgroups(groups); err != nil {
		return fmt.Errorf("setgroups: %w", err)
	}
	if err := syscall.Setresgid(gid, gid, gid); err != nil {
		return fmt.Errorf("setgid: %w", err)
	}
	if err := syscall.Setresuid(uid, uid, uid); err != nil {
		return fmt.Errorf("setuid: %w", err)
	}
	return dieWithParent()
}

// dieWithParent has to be said again after a change of user, which clears it.
func dieWithParent() error {
	if err := prctl(prSetPdeathsig, uintptr(syscall.SIGKILL)); err != nil {
		return fmt.Errorf("parent-death signal: %w", err)
	}
	return nil
}

func prctl(option, value uintptr) error {
	if _, _, errno := syscall.RawSyscall6(syscall.SYS_PRCTL, option, value, 0, 0, 0, 0); errno != 0 {
		return errno
	}
	return nil
}
