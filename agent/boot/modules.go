package boot

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"unsafe"
)

// loadModules loads what /modules names, in its order. Loading is synchronous: afterwards the devices are there.
func loadModules() error {
	list, err := os.ReadFile("/modules")
	if os.IsNotExist(err) {
		return nil // a kernel with everything built in
	}
	if err != nil {
		return err
	}
	for name := range strings.FieldsSeq(string(list)) {
		if err := loadModule("/m/" + name); err != nil {
			return fmt.Errorf("module %s: %w", name, err)
		}
	}
	// They are in the kernel now; the initramfs keeps its files in memory for ever.
	return os.RemoveAll("/m")
}

func loadModule(path string) error {
	fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(fd)
	var noParameters byte
	_, _, errno := syscall.Syscall(sysFinitModule, uintptr(fd), uintptr(unsafe.Pointer(&noParameters)), 0)
	if errno != 0 && errno != syscall.EEXIST {
		return errno
	}
	return nil
}
