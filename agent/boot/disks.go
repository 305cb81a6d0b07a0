package boot

import (
	"encoding/binary"
	"errors"
	"os"
	"strings"
	"syscall"
	"time"
)

// disks are the block devices by what is on them.
type disks struct {
	environment string // squashfs
	scratch     string // ext4; empty when there is none
}

const (
	diskDeadline = 10 * time.Second
	diskPoll     = time.Millisecond
)

// waitForDisks looks until the environment is there. The drivers have been loaded and found their devices in one go,
// so the first look is the usual case, and a scratch disk that is to come is there with the environment.
func waitForDisks() (disks, error) {
	for deadline := time.Now().Add(diskDeadline); ; time.Sleep(diskPoll) {
		if d := findDisks(); d.environment != "" {
			return d, nil
		}
		if time.Now().After(deadline) {
			return disks{}, errors.New("no disk holds a squashfs")
		}
	}
}

func findDisks() (d disks) {
	entries, _ := os.ReadDir("/sys/block")
	for _, e := range entries {
		name := e.Name()
		if strings.HasPrefix(name, "loop") || strings.HasPrefix(name, "ram") {
			continue
		}
		switch kindOf("/dev/" + name) {
		case "squashfs":
			if d.environment == "" {
				d.environment = "/dev/" + name
			}
		case "ext4":
			if d.scratch == "" {
				d.scratch = "/dev/" + name
			}
		}
	}
	return d
}

// kindOf tells a file system by its magic number.
func kindOf(path string) string {
	const (
		ext4At    = 0x438
		ext4Magic = 0xef53
	)
	fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return ""
	}
	defer syscall.Close(fd)
	var start [ext4At + 2]byte
	n, _ := syscall.Pread(fd, start[:], 0)
	switch {
	case n >= 4 && string(start[:4]) == "hsqs":
		return "squashfs"
	case n == len(start) && binary.LittleEndian.Uint16(start[ext4At:]) == ext4Magic:
		return "ext4"
	}
	return ""
}
