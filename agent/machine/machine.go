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

// MemoryKiB is what the kernel says about the memory, in KiB; 0 when unknown. Available is what could be used without
// swapping, free what holds nothing at all.
type MemoryKiB struct{ Total, Available, Free int64 }

// Memory reads it.
func Memory() (m MemoryKiB) {
	data, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return m
	}
	for line := range strings.SplitSeq(string(data), "\n") {
		name, value, _ := strings.Cut(line, ":")
		number, _, _ := strings.Cut(strings.TrimSpace(value), " ")
		switch name {
		case "MemTotal":
			m.Total, _ = strconv.ParseInt(number, 10, 64)
		case "MemFree":
			m.Free, _ = strconv.ParseInt(number, 10, 64)
		case "MemAvailable":
			m.Available, _ = strconv.ParseInt(number, 10, 64)
			return m
		}
	}
	return m
}

// Number reads a file of /proc or /sys with one number; 0 when it is not there.
func Number(path string) int64 {
	data, _ := os.ReadFile(path)
	n, _ := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
	return n
}
