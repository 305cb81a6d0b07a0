package job

import (
	"os"
	"syscall"
	"unsafe"
)

const (
	tiocgptpeer = 0x5441
	ttyGroup    = 5 // of every distribution's /dev/pts entries
)

// openTerminal makes a pseudo terminal that belongs to uid. The slave is opened through the master, so it needs no
// path and cannot be another one.
func openTerminal(t Terminal, uid uint32) (master *os.File, slave int, err error) {
	fd, err := syscall.Open("/dev/ptmx", syscall.O_RDWR|syscall.O_NOCTTY|syscall.O_CLOEXEC|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, -1, err
	}
	master = os.NewFile(uintptr(fd), "terminal")
	var unlocked int32
	if err := ioctl(fd, syscall.TIOCSPTLCK, uintptr(unsafe.Pointer(&unlocked))); err != nil {
		master.Close()
		return nil, -1, err
	}
	got, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), tiocgptpeer, syscall.O_RDWR|syscall.O_NOCTTY|syscall.O_CLOEXEC)
	if errno != 0 {
		master.Close()
		return nil, -1, errno
	}
	slave = int(got)
	if os.Geteuid() == 0 {
		syscall.Fchown(slave, int(uid), ttyGroup)
	}
	setSize(master, t.Rows, t.Columns)
	return master, slave, nil
}

func setSize(master *os.File, rows, columns uint16) {
	raw, err := master.SyscallConn()
	if err != nil {
		return
	}
	size := struct{ rows, columns, x, y uint16 }{rows: rows, columns: columns}
	raw.Control(func(fd uintptr) { ioctl(int(fd), syscall.TIOCSWINSZ, uintptr(unsafe.Pointer(&size))) })
}

func ioctl(fd int, request, argument uintptr) error {
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), request, argument); errno != 0 {
		return errno
	}
	return nil
}
