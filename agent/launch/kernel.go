package launch

import (
	"errors"
	"syscall"
	"unsafe"
)

// The system calls the standard library does not wrap. The numbers written out are the same on
// every architecture (they are younger than the common table).
const (
	sysPidfdOpen = 434
	sysOpenat2   = 437

	prSetChildSubreaper = 36
	prSetNoNewPrivs     = 38

	clockRealtime  = 0
	timerAbsolute  = 1
	pollIn         = 0x001
	pollOut        = 0x004
	waitAll        = 0 // P_ALL
	atRemoveDir    = 0x200
	openPath       = 0x200000 // O_PATH
	resolveNoXdev  = 0x01
	resolveNoLinks = 0x04
	resolveBeneath = 0x08

	siginfoPid = 4 // index in ints, on 64-bit Linux: three ints, padding, then si_pid
)

func prctl(option, value uintptr) error {
	if _, _, errno := syscall.RawSyscall6(syscall.SYS_PRCTL, option, value, 0, 0, 0, 0); errno != 0 {
		return errno
	}
	return nil
}

func pidfdOpen(pid int) (int, error) {
	fd, _, errno := syscall.RawSyscall(sysPidfdOpen, uintptr(pid), 0, 0)
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}

type pollFd struct {
	fd      int32
	events  int16
	revents int16
}

// poll waits up to seconds for one of the events on fd; false when none came.
func poll(fd int, events int16, seconds int64) bool {
	set := pollFd{fd: int32(fd), events: events}
	limit := syscall.NsecToTimespec(seconds * 1e9)
	for {
		n, _, errno := syscall.Syscall6(syscall.SYS_PPOLL, uintptr(unsafe.Pointer(&set)), 1,
			uintptr(unsafe.Pointer(&limit)), 0, 0, 0)
		if errno != syscall.EINTR { // the kernel has taken the time already waited off limit
			return errno == 0 && n == 1
		}
	}
}

func timerfdCreate() (int, error) {
	fd, _, errno := syscall.RawSyscall(syscall.SYS_TIMERFD_CREATE, clockRealtime,
		syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}

// timerfdSet arms the timer for an instant in nanoseconds since the epoch; zero disarms it.
func timerfdSet(fd int, instant int64) error {
	spec := [2]syscall.Timespec{1: syscall.NsecToTimespec(instant)} // interval, value
	_, _, errno := syscall.RawSyscall6(syscall.SYS_TIMERFD_SETTIME, uintptr(fd), timerAbsolute,
		uintptr(unsafe.Pointer(&spec)), 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// peekZombie names one dead child and leaves it unreaped; zero when none is dead.
func peekZombie() (int, error) {
	var info [32]int32 // siginfo_t, 128 bytes
	_, _, errno := syscall.RawSyscall6(syscall.SYS_WAITID, waitAll, 0, uintptr(unsafe.Pointer(&info)),
		syscall.WEXITED|syscall.WNOHANG|syscall.WNOWAIT|syscall.WALL, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(info[siginfoPid]), nil
}

// reap waits for one child (-1: any) and rides out interruptions.
func reap(pid, options int) (int, syscall.WaitStatus, error) {
	for {
		var status syscall.WaitStatus
		got, err := syscall.Wait4(pid, &status, options|syscall.WALL, nil)
		if !errors.Is(err, syscall.EINTR) {
			return got, status, err
		}
	}
}

type openHow struct {
	flags   uint64
	mode    uint64
	resolve uint64
}

// openBeneath opens a directory entry of parent that is itself a directory: no symbolic link, no
// other mount (a bind mount in a jail must not be emptied), nothing above parent.
func openBeneath(parent int, name string) (int, error) {
	path, err := syscall.BytePtrFromString(name)
	if err != nil {
		return -1, err
	}
	how := openHow{
		flags:   syscall.O_RDONLY | syscall.O_DIRECTORY | syscall.O_CLOEXEC,
		resolve: resolveNoXdev | resolveNoLinks | resolveBeneath,
	}
	fd, _, errno := syscall.Syscall6(sysOpenat2, uintptr(parent), uintptr(unsafe.Pointer(path)),
		uintptr(unsafe.Pointer(&how)), unsafe.Sizeof(how), 0, 0)
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}

func unlinkAt(parent int, name string, flags uintptr) error {
	path, err := syscall.BytePtrFromString(name)
	if err != nil {
		return err
	}
	_, _, errno := syscall.Syscall(syscall.SYS_UNLINKAT, uintptr(parent), uintptr(unsafe.Pointer(path)), flags)
	if errno != 0 {
		return errno
	}
	return nil
}
