package confine

import (
	"fmt"
	"os"
	"path"
	"syscall"
)

const (
	rootSize = "size=16m,mode=0700" // the jailer's copy of us, directories, mount points
	dirMode  = 0o755
)

// mountRoot puts a tmpfs on the root directory, and in it what the plan names. All of it belongs to this mount
// namespace and ends with it: nothing is left for anybody to clean up. A tmpfs, also because the state directory may
// lie on a filesystem that allows no devices.
func (p *plan) mountRoot() error {
	if err := mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := mount("tmpfs", p.Root, "tmpfs", syscall.MS_NOSUID, rootSize); err != nil {
		return err
	}
	for _, b := range p.Binds {
		if err := b.mount(p.Root); err != nil {
			return err
		}
	}
	return nil
}

func (b bind) mount(root string) error {
	target := path.Join(root, b.Target)
	info, err := os.Stat(b.Source)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(path.Dir(target), dirMode); err != nil {
		return err
	}
	if info.IsDir() {
		err = os.Mkdir(target, dirMode)
	} else {
		err = os.WriteFile(target, nil, 0o600)
	}
	if err != nil {
		return err
	}
	if err := mount(b.Source, target, "", syscall.MS_BIND, ""); err != nil {
		return err
	}
	if b.Access == accessWrite || b.Access == accessDevice {
		return nil
	}
	return readOnly(target)
}

// readOnly keeps the flags the mount has: in a user namespace they must not be taken away.
func readOnly(target string) error {
	var stat syscall.Statfs_t
	if err := syscall.Statfs(target, &stat); err != nil {
		return err
	}
	flags := uintptr(syscall.MS_BIND | syscall.MS_REMOUNT | syscall.MS_RDONLY)
	for has, flag := range map[int64]uintptr{
		0x0002: syscall.MS_NOSUID,
		0x0004: syscall.MS_NODEV,
		0x0008: syscall.MS_NOEXEC,
		0x0400: syscall.MS_NOATIME,
		0x0800: syscall.MS_NODIRATIME,
		0x1000: syscall.MS_RELATIME,
	} {
		if int64(stat.Flags)&has != 0 {
			flags |= flag
		}
	}
	return mount("", target, "", flags, "")
}

// pivot makes root the root directory, drops the old one, and takes the right to write to the new one.
func pivot(root string) error {
	if err := os.Chdir(root); err != nil {
		return err
	}
	// Both names the same: the old root lies over the new one until it is taken away (pivot_root(2)).
	if err := syscall.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	if err := syscall.Unmount(".", syscall.MNT_DETACH); err != nil {
		return fmt.Errorf("leave the old root: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	return readOnly("/")
}

func mount(source, target, kind string, flags uintptr, data string) error {
	if err := syscall.Mount(source, target, kind, flags, data); err != nil {
		return fmt.Errorf("mount %s on %s: %w", source, target, err)
	}
	return nil
}
