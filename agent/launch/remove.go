package launch

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"syscall"
)

const (
	maxDepth  = 64 // each level holds a descriptor
	nameBatch = 64
)

// machineDir is a machine directory that has been found to be one: its name, a real directory on
// its parent's mount, ours.
type machineDir struct {
	parent int
	fd     int
	name   string
}

func openMachineDir(directory string) (*machineDir, error) {
	if err := checkDirectoryName(directory); err != nil {
		return nil, err
	}
	parent, err := syscall.Open(path.Dir(directory), openPath|syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("machine directory %s: %w", directory, err)
	}
	m := &machineDir{parent: parent, fd: -1, name: path.Base(directory)}
	if m.fd, err = openBeneath(parent, m.name); err == nil {
		err = m.checkOwner()
	}
	if err != nil {
		m.close()
		return nil, fmt.Errorf("machine directory %s: %w", directory, err)
	}
	return m, nil
}

func (m *machineDir) checkOwner() error {
	var stat syscall.Stat_t
	if err := syscall.Fstat(m.fd, &stat); err != nil {
		return err
	}
	if int(stat.Uid) != os.Geteuid() {
		return fmt.Errorf("it belongs to uid %d", stat.Uid)
	}
	return nil
}

func (m *machineDir) close() {
	syscall.Close(m.parent)
	if m.fd >= 0 {
		syscall.Close(m.fd)
	}
}

// removeMachineDir empties and removes a machine directory; what cannot go stays, the rest goes.
func removeMachineDir(directory string) error {
	m, err := openMachineDir(directory)
	if err != nil {
		return err
	}
	defer m.close()
	if err := removeChild(m.parent, m.name, 0); err != nil {
		return fmt.Errorf("remove %s: %w", directory, err)
	}
	return nil
}

// removeChild removes one entry of a directory and all below it. Every step starts from a
// descriptor, and links and mounts are refused by the kernel, so nothing outside can be reached
// whatever a broken-out VMM put there.
func removeChild(parent int, name string, depth int) error {
	err := unlinkAt(parent, name, 0)
	if err == nil || errors.Is(err, syscall.ENOENT) {
		return nil
	}
	if !errors.Is(err, syscall.EISDIR) && !errors.Is(err, syscall.EPERM) {
		return err
	}
	if depth == maxDepth {
		return errors.New("too many levels of directories")
	}
	fd, err := openBeneath(parent, name)
	if err != nil {
		return err
	}
	dir := os.NewFile(uintptr(fd), name)
	defer dir.Close()
	if err := emptyDir(dir, depth); err != nil {
		return err
	}
	return unlinkAt(parent, name, atRemoveDir)
}

// emptyDir starts over until a pass removes nothing, because deleting while reading may make the
// reading skip entries.
func emptyDir(dir *os.File, depth int) error {
	for {
		removed, err := emptyOnce(dir, depth)
		if removed == 0 {
			return err
		}
		if _, err := dir.Seek(0, io.SeekStart); err != nil {
			return err
		}
	}
}

// emptyOnce reads in batches, for a memory bound, and goes on past what it cannot remove.
func emptyOnce(dir *os.File, depth int) (removed int, first error) {
	for {
		names, err := dir.Readdirnames(nameBatch)
		for _, name := range names {
			if err := removeChild(int(dir.Fd()), name, depth+1); err == nil {
				removed++
			} else if first == nil {
				first = err
			}
		}
		if errors.Is(err, io.EOF) {
			return removed, first
		}
		if err != nil {
			return 0, err
		}
	}
}
