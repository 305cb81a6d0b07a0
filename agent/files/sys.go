package files

import (
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"unsafe"
)

const (
	nameMost   = 255
	pathMost   = 4095
	targetMost = 4095

	atSymlinkNofollow = 0x100
	noReplace         = 1 // RENAME_NOREPLACE
	exchange          = 2 // RENAME_EXCHANGE
	utimeOmit         = 1<<30 - 2
	seekData          = 3
	seekHole          = 4

	openDir   = syscall.O_RDONLY | syscall.O_DIRECTORY | syscall.O_NOFOLLOW | syscall.O_CLOEXEC
	openRead  = syscall.O_RDONLY | syscall.O_NOFOLLOW | syscall.O_NONBLOCK | syscall.O_CLOEXEC
	openWrite = syscall.O_WRONLY | syscall.O_CREAT | syscall.O_EXCL | syscall.O_NOFOLLOW | syscall.O_CLOEXEC
	openPlain = syscall.O_RDONLY | syscall.O_DIRECTORY | syscall.O_CLOEXEC
	permBits  = 0o777
	noFD      = -1
	shortMost = 32 << 10
)

// pointer gives the C string of name in room, which must outlive the call it is for.
func pointer(room *[pathMost + 1]byte, name string) (uintptr, error) {
	if len(name) > pathMost || strings.IndexByte(name, 0) >= 0 {
		return 0, syscall.ENAMETOOLONG
	}
	room[copy(room[:], name)] = 0
	return uintptr(unsafe.Pointer(room)), nil
}

// rooms keeps the C strings off the stack, which would otherwise have to grow.
var rooms = sync.Pool{New: func() any { return new([pathMost + 1]byte) }}

// Names are made and looked up with raw system calls. With the usual ones Go's scheduler looks for something else to run
// during each that takes longer than 20 microseconds, which under software emulation is every one, and costs more than
// the call. What moves contents (writeAll, readSome) is not raw, unless it is short.

// at calls a system call whose first two arguments are a directory and a name in it.
//
//go:uintptrescapes
func at(number uintptr, dir int, name string, rest ...uintptr) (int, error) {
	room := rooms.Get().(*[pathMost + 1]byte)
	defer rooms.Put(room)
	text, err := pointer(room, name)
	if err != nil {
		return -1, err
	}
	var a [4]uintptr
	copy(a[:], rest)
	for {
		result, _, errno := syscall.RawSyscall6(number, uintptr(dir), text, a[0], a[1], a[2], a[3])
		if errno == 0 {
			return int(result), nil
		}
		if errno != syscall.EINTR {
			return -1, errno
		}
	}
}

func openAt(dir int, name string, flags int, mode uint32) (int, error) {
	return at(syscall.SYS_OPENAT, dir, name, uintptr(flags), uintptr(mode))
}

func makeDir(dir int, name string, mode uint32) error {
	_, err := at(syscall.SYS_MKDIRAT, dir, name, uintptr(mode))
	return err
}

func statAt(dir int, name string) (st syscall.Stat_t, err error) {
	_, err = at(sysNewfstatat, dir, name, uintptr(unsafe.Pointer(&st)), atSymlinkNofollow)
	return st, err
}

func readLink(dir int, name string, space []byte) (int, error) {
	return at(syscall.SYS_READLINKAT, dir, name, uintptr(unsafe.Pointer(&space[0])), uintptr(len(space)))
}

// changeMode follows a symbolic link: for names in the staging area only.
func changeMode(dir int, name string, mode uint32) error {
	_, err := at(syscall.SYS_FCHMODAT, dir, name, uintptr(mode))
	return err
}

func changeOwner(dir int, name string, uid, gid uint32) error {
	_, err := at(syscall.SYS_FCHOWNAT, dir, name, uintptr(uid), uintptr(gid), atSymlinkNofollow)
	return err
}

func times(mtime int64) [2]syscall.Timespec {
	return [2]syscall.Timespec{{Nsec: utimeOmit}, syscall.NsecToTimespec(mtime)}
}

// changeTime sets the time of a name itself, a symbolic link included.
func changeTime(dir int, name string, mtime int64) error {
	pair := times(mtime)
	_, err := at(syscall.SYS_UTIMENSAT, dir, name, uintptr(unsafe.Pointer(&pair)), atSymlinkNofollow)
	return err
}

// changeOpenTime sets the time of an open file.
func changeOpenTime(fd int, mtime int64) error {
	pair := times(mtime)
	_, _, errno := syscall.RawSyscall6(syscall.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(&pair)), 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// two calls a system call on two names, each in its directory.
//
//go:uintptrescapes
func two(number uintptr, oldDir int, oldName string, newDir int, newName string, flags uintptr) error {
	room := rooms.Get().(*[pathMost + 1]byte)
	defer rooms.Put(room)
	text, err := pointer(room, newName)
	if err != nil {
		return err
	}
	_, err = at(number, oldDir, oldName, uintptr(newDir), text, flags)
	return err
}

func rename(oldDir int, oldName string, newDir int, newName string, flags uintptr) error {
	return two(sysRenameat2, oldDir, oldName, newDir, newName, flags)
}

func hardLink(oldDir int, oldName string, newDir int, newName string) error {
	return two(syscall.SYS_LINKAT, oldDir, oldName, newDir, newName, 0)
}

func symlink(target string, dir int, name string) error {
	first, second := rooms.Get().(*[pathMost + 1]byte), rooms.Get().(*[pathMost + 1]byte)
	defer rooms.Put(first)
	defer rooms.Put(second)
	to, err := pointer(first, target)
	if err != nil {
		return err
	}
	text, err := pointer(second, name)
	if err != nil {
		return err
	}
	if _, _, errno := syscall.RawSyscall(syscall.SYS_SYMLINKAT, to, uintptr(dir), text); errno != 0 {
		return errno
	}
	return nil
}

// writeAll writes b at an offset.
func writeAll(fd int, b []byte, offset int64) error {
	for len(b) > 0 {
		n, err := move(syscall.SYS_PWRITE64, fd, b, offset)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		b, offset = b[n:], offset+int64(n)
	}
	return nil
}

// readSome reads at an offset; 0 at the end of the file.
func readSome(fd int, b []byte, offset int64) (int, error) {
	for {
		n, err := move(syscall.SYS_PREAD64, fd, b, offset)
		if err != syscall.EINTR {
			return max(n, 0), err
		}
	}
}

// move is pread(2) or pwrite(2).
func move(number uintptr, fd int, b []byte, offset int64) (int, error) {
	place := uintptr(unsafe.Pointer(unsafe.SliceData(b)))
	var n uintptr
	var errno syscall.Errno
	if len(b) <= shortMost {
		n, _, errno = syscall.RawSyscall6(number, uintptr(fd), place, uintptr(len(b)), uintptr(offset), 0, 0)
	} else {
		n, _, errno = syscall.Syscall6(number, uintptr(fd), place, uintptr(len(b)), uintptr(offset), 0, 0)
	}
	runtime.KeepAlive(b) // frames and buffers: on the heap, where nothing moves
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// closeFD closes a descriptor if it is one.
func closeFD(fd int) error {
	if fd < 0 {
		return nil
	}
	if _, _, errno := syscall.RawSyscall(syscall.SYS_CLOSE, uintptr(fd), 0, 0); errno != 0 {
		return errno
	}
	return nil
}

// names lists an open directory, and leaves it ready to be listed again.
func names(fd int, buffer []byte) (list []string, err error) {
	if _, err := syscall.Seek(fd, 0, 0); err != nil {
		return nil, err
	}
	for {
		n, err := syscall.ReadDirent(fd, buffer)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || n <= 0 {
			return list, err
		}
		_, _, list = syscall.ParseDirent(buffer[:n], -1, list)
	}
}

// processMask is what the kernel takes from the modes of new files.
var processMask = sync.OnceValue(func() uint32 {
	status, _ := os.ReadFile("/proc/self/status")
	_, rest, _ := strings.Cut(string(status), "Umask:")
	line, _, _ := strings.Cut(rest, "\n")
	mask, err := strconv.ParseUint(strings.TrimSpace(line), 8, 32)
	if err != nil {
		return permBits
	}
	return uint32(mask)
})
