package boot

import (
	"fmt"
	"os"
	"syscall"
	"unsafe"
)

func mount(source, target, kind string, flags uintptr, data string) error {
	if err := syscall.Mount(source, target, kind, flags, data); err != nil {
		return fmt.Errorf("mount %s (%s) on %s: %w", source, kind, target, err)
	}
	return nil
}

const (
	noExec   = syscall.MS_NOSUID | syscall.MS_NODEV | syscall.MS_NOEXEC
	noDevice = syscall.MS_NOSUID | syscall.MS_NODEV
)

// mountKernel mounts the kernel's own file systems, still in the initramfs.
func mountKernel() error {
	for _, m := range []struct {
		kind, at string
		flags    uintptr
	}{
		{"proc", "/proc", noExec},
		{"sysfs", "/sys", noExec},
		{"devtmpfs", "/dev", syscall.MS_NOSUID},
		{"cgroup2", cgroupRoot, noExec},
	} {
		os.Mkdir(m.at, 0o755)
		if err := mount(m.kind, m.at, m.kind, m.flags, ""); err != nil {
			return err
		}
	}
	return nil
}

const (
	lower   = "/lower"
	scratch = "/scratch"
	newRoot = "/root"
)

// enterRoot mounts the environment with a writable layer over it and makes that the root.
func enterRoot(d disks) error {
	for _, dir := range []string{lower, scratch, newRoot} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if err := mount(d.environment, lower, "squashfs", syscall.MS_RDONLY|syscall.MS_NODEV, ""); err != nil {
		return err
	}
	if err := mountScratch(d.scratch); err != nil {
		return err
	}
	if err := makeLayer(); err != nil {
		return err
	}
	layers := "lowerdir=" + lower + ",upperdir=" + scratch + "/upper,workdir=" + scratch + "/work"
	if err := mount("overlay", newRoot, "overlay", 0, layers); err != nil {
		return err
	}
	for _, dir := range []string{"/proc", "/sys", "/dev"} {
		if err := ensureDir(newRoot+dir, 0o755); err != nil {
			return err
		}
		if err := mount(dir, newRoot+dir, "", syscall.MS_MOVE, ""); err != nil {
			return err
		}
	}
	if err := os.Chdir(newRoot); err != nil {
		return err
	}
	if err := mount(".", "/", "", syscall.MS_MOVE, ""); err != nil {
		return err
	}
	if err := syscall.Chroot("."); err != nil {
		return err
	}
	return os.Chdir("/")
}

// mountScratch mounts what takes the writes. A scratch disk belongs to this machine alone and has no journal, so the
// background work of ext4 that would touch all of a sparse file, and its early writing of renamed files, are off.
func mountScratch(disk string) error {
	if disk == "" {
		return mount("tmpfs", scratch, "tmpfs", 0, "mode=755")
	}
	return mount(disk, scratch, "ext4", syscall.MS_NOATIME, "noinit_itable,noauto_da_alloc")
}

// makeLayer makes the upper and the work directory. The root of an overlay has the mode of the upper directory, so
// that takes the mode and the owner of the environment's root.
func makeLayer() error {
	var root syscall.Stat_t
	if err := syscall.Stat(lower, &root); err != nil {
		return err
	}
	upper := scratch + "/upper"
	for _, dir := range []string{upper, scratch + "/work"} {
		if err := os.Mkdir(dir, 0o755); err != nil && !os.IsExist(err) {
			return err
		}
	}
	if err := os.Chown(upper, int(root.Uid), int(root.Gid)); err != nil {
		return err
	}
	return syscall.Chmod(upper, root.Mode&0o7777)
}

// ensureDir makes a directory where the environment has none, or has something else, such as a symbolic link that
// would lead a mount astray.
func ensureDir(path string, mode os.FileMode) error {
	info, err := os.Lstat(path)
	if err == nil && info.IsDir() {
		return nil
	}
	if err == nil {
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	return os.Mkdir(path, mode)
}

// mountRuntime mounts and links what every system has besides its disk.
func mountRuntime() error {
	if err := ensureDir("/run", 0o755); err != nil {
		return err
	}
	if err := ensureDir("/tmp", 0o755); err != nil {
		return err
	}
	if info, err := os.Stat("/tmp"); err == nil && info.Mode()&(os.ModePerm|os.ModeSticky) != os.ModePerm|os.ModeSticky {
		syscall.Chmod("/tmp", 0o1777)
	}
	os.Mkdir("/dev/pts", 0o755)
	os.Mkdir("/dev/shm", 0o755)
	for _, m := range []struct {
		kind, at string
		flags    uintptr
		data     string
	}{
		{"tmpfs", "/run", noDevice, "mode=755"},
		{"tmpfs", "/dev/shm", noDevice, "mode=1777"},
		{"devpts", "/dev/pts", syscall.MS_NOSUID | syscall.MS_NOEXEC, "gid=5,mode=620,ptmxmode=666"},
	} {
		if err := mount(m.kind, m.at, m.kind, m.flags, m.data); err != nil {
			return err
		}
	}
	os.Mkdir("/run/lock", 0o755)
	syscall.Chmod("/run/lock", 0o1777)
	for name, target := range map[string]string{
		"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2",
	} {
		os.Symlink(target, "/dev/"+name)
	}
	return nil
}

// loopbackUp sets the loopback interface up; the kernel then gives it its addresses.
func loopbackUp() error {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(fd)
	request := struct {
		name  [syscall.IFNAMSIZ]byte
		flags uint16
		_     [22]byte
	}{name: [syscall.IFNAMSIZ]byte{'l', 'o'}, flags: syscall.IFF_UP | syscall.IFF_RUNNING}
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), syscall.SIOCSIFFLAGS, uintptr(unsafe.Pointer(&request)))
	if errno != 0 {
		return errno
	}
	return nil
}
