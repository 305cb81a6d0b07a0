// Package machine reads what the kernel says about this machine.
package machine

import (
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

// Uptime is the time since the kernel started.
func Uptime() time.Duration {
	const clockBoottime = 7
	var now syscall.Timespec
	syscall.Syscall(syscall.SYS_CLOCK_GETTIME, clockBoottime, uintptr(unsafe.Pointer(&now)), 0)
	return time.Duration(now.Nano())
}

// Memory returns the memory and the part that could be used without swapping, in KiB; 0 when unknown.
func Memory() (totalKiB, availableKiB int64) {
	data, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, 0
	}
	for line := range strings.SplitSeq(string(data), "\n") {
		name, value, _ := strings.Cut(line, ":")
		number, _, _ := strings.Cut(strings.TrimSpace(value), " ")
		switch name {
		case "MemTotal":
			totalKiB, _ = strconv.ParseInt(number, 10, 64)
		case "MemAvailable":
			availableKiB, _ = strconv.ParseInt(number, 10, 64)
			return totalKiB, availableKiB
		}
	}
	return totalKiB, availableKiB
}

// Number reads a file of /proc or /sys with one number; 0 when it is not there.
func Number(path string) int64 {
	data, _ := os.ReadFile(path)
	n, _ := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
	return n
}
