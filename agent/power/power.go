// Package power ends the machine.
package power

import "syscall"

// Off writes what is not yet on the disks and ends the machine; with restart by a reset, which is how Firecracker's
// process is made to exit.
func Off(restart bool) {
	syscall.Sync()
	how := syscall.LINUX_REBOOT_CMD_POWER_OFF
	if restart {
		how = syscall.LINUX_REBOOT_CMD_RESTART
	}
	syscall.Reboot(how)
}
