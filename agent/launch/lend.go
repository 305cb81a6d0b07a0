package launch

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"unsafe"
)

// QEMU 7.2 opens the file of a machine's memory for writing even when it maps it copy-on-write and only ever reads it.
// That file belongs to many machines, and none may write to it. So its mode forbids writing, and the open that would
// fail is answered by us with the descriptor we hold, which only reads: seccomp_unotify(2), Linux 5.9 and later.
// The file's mode is what protects it; this only makes the VMM's one request succeed.
//
// When the guest returns memory, QEMU first punches a hole in that file and then lets its own copy of the pages go. The
// hole would be in everybody's memory, and the descriptor cannot make it. So we answer that it is made, and QEMU lets
// its copy go: the guest sees the file's old contents in pages it had said to be free.

const (
	seccompSetModeFilter   = 1
	seccompFlagNewListener = 1 << 3
	seccompReturnNotify    = 0x7fc00000
	seccompReturnAllow     = 0x7fff0000
	seccompContinue        = 1
	seccompReceive         = 0xc0502100
	seccompSend            = 0xc0182101
	seccompAddFD           = 0x40182103

	bpfLoadWord = 0x20 // BPF_LD | BPF_W | BPF_ABS
	bpfAnd      = 0x54 // BPF_ALU | BPF_AND | BPF_K
	bpfEqual    = 0x15 // BPF_JMP | BPF_JEQ | BPF_K
	bpfHasBits  = 0x45 // BPF_JMP | BPF_JSET | BPF_K
	bpfReturn   = 0x06

	dataNumber = 0  // offsets in struct seccomp_data
	dataArch   = 4  // AUDIT_ARCH_*
	dataMode   = 24 // args[1], low half
	dataFlags  = 32 // args[2], low half
	pathAtMost = 64

	punchHole = 2 // FALLOC_FL_PUNCH_HOLE
)

// auditArch is the number the kernel has for the architecture we were compiled for.
var auditArch = map[string]uint32{"amd64": 0xc000003e, "arm64": 0xc00000b7}

type bpf struct {
	code   uint16
	jt, jf uint8
	k      uint32
}

// lender answers the opens of one VMM, and its holes.
type lender struct {
	listener int
	files    map[string]int // by the path that the VMM opens
}

type notification struct {
	id    uint64
	pid   uint32
	flags uint32
	nr    int32
	arch  uint32
	ip    uint64
	args  [6]uint64
}

type notificationAnswer struct {
	id    uint64
	value int64
	error int32
	flags uint32
}

type descriptorToAdd struct {
	id       uint64
	flags    uint32
	source   uint32
	target   uint32
	newFlags uint32
}

func (p *plan) checkLend() error {
	for i, fd := range p.Lend {
		if !slices.Contains(p.Files, fd) || slices.Contains(p.Lend[:i], fd) {
			return errors.New("lend names what is not one of files, or one twice")
		}
	}
	return nil
}

// lend prepares this thread, and so the child it starts, for the plan's files to lend. Descriptor number n of the
// child is opened by it as /proc/self/fd/n.
func lend(p *plan) error {
	if len(p.Lend) == 0 {
		return nil
	}
	l := &lender{files: make(map[string]int, len(p.Lend))}
	for _, fd := range p.Lend {
		own, _, errno := syscall.RawSyscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_DUPFD_CLOEXEC, firstFile)
		if errno != 0 {
			return fmt.Errorf("lend: %w", errno)
		}
		l.files["/proc/self/fd/"+strconv.Itoa(firstFile+slices.Index(p.Files, fd))] = int(own)
	}
	listener, err := trap()
	if err != nil {
		return fmt.Errorf("lend (seccomp): %w", err)
	}
	l.listener = listener
	go l.serve()
	return nil
}

// trap makes every openat(2) for reading and writing and every hole punched by fallocate(2) wait for an answer, in this
// thread and its children.
func trap() (int, error) {
	arch, known := auditArch[runtime.GOARCH]
	if !known {
		return -1, errors.New("unknown architecture")
	}
	filter := []bpf{
		{bpfLoadWord, 0, 0, dataArch},
		{bpfEqual, 0, 8, arch},
		{bpfLoadWord, 0, 0, dataNumber},
		{bpfEqual, 0, 3, syscall.SYS_OPENAT},
		{bpfLoadWord, 0, 0, dataFlags},
		{bpfAnd, 0, 0, syscall.O_ACCMODE},
		{bpfEqual, 4, 3, syscall.O_RDWR},
		{bpfEqual, 0, 2, syscall.SYS_FALLOCATE},
		{bpfLoadWord, 0, 0, dataMode},
		{bpfHasBits, 1, 0, punchHole},
		{bpfReturn, 0, 0, seccompReturnAllow},
		{bpfReturn, 0, 0, seccompReturnNotify},
	}
	program := struct {
		length uint16
		filter *bpf
	}{uint16(len(filter)), &filter[0]}
	fd, _, errno := syscall.RawSyscall(sysSeccomp, seccompSetModeFilter, seccompFlagNewListener,
		uintptr(unsafe.Pointer(&program)))
	runtime.KeepAlive(filter)
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}

// serve runs for as long as the launcher: whoever asks for something else is told to go on as if nothing had been.
func (l *lender) serve() {
	for {
		var n notification
		if err := l.control(seccompReceive, unsafe.Pointer(&n)); err != nil {
			if errors.Is(err, syscall.EINTR) || errors.Is(err, syscall.ENOENT) {
				continue // the one who asked has died
			}
			return
		}
		answer := notificationAnswer{id: n.id, flags: seccompContinue}
		if n.nr == syscall.SYS_FALLOCATE {
			if l.isLent(int(n.pid), int32(n.args[0])) {
				answer.flags = 0
			}
		} else if own, lent := l.files[pathAt(int(n.pid), n.args[1])]; lent {
			add := descriptorToAdd{id: n.id, source: uint32(own), newFlags: syscall.O_CLOEXEC}
			if fd, err := l.add(&add); err == nil {
				answer = notificationAnswer{id: n.id, value: fd}
			}
		}
		_ = l.control(seccompSend, unsafe.Pointer(&answer)) // fails only when nobody waits any more
	}
}

// isLent tells whether a descriptor of a process is of a file that we lend.
func (l *lender) isLent(pid int, fd int32) bool {
	var theirs, ours syscall.Stat_t
	if syscall.Stat(fmt.Sprintf("/proc/%d/fd/%d", pid, fd), &theirs) != nil {
		return false
	}
	for _, own := range l.files {
		if syscall.Fstat(own, &ours) == nil && ours.Dev == theirs.Dev && ours.Ino == theirs.Ino {
			return true
		}
	}
	return false
}

func (l *lender) control(request uintptr, argument unsafe.Pointer) error {
	// Not a raw call: it waits, and the runtime must be able to use the processor meanwhile.
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(l.listener), request, uintptr(argument)); errno != 0 {
		return errno
	}
	return nil
}

func (l *lender) add(what *descriptorToAdd) (int64, error) {
	fd, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(l.listener), seccompAddFD, uintptr(unsafe.Pointer(what)))
	if errno != 0 {
		return -1, errno
	}
	return int64(fd), nil
}

// pathAt reads a short path from a process that waits for us; empty when that cannot be.
func pathAt(pid int, address uint64) string {
	memory, err := os.Open("/proc/" + strconv.Itoa(pid) + "/mem")
	if err != nil {
		return ""
	}
	defer memory.Close()
	text := make([]byte, pathAtMost)
	count, _ := memory.ReadAt(text, int64(address))
	end := slices.Index(text[:count], 0)
	return string(text[:max(end, 0)])
}
