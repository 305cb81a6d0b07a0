package confine

import (
	"fmt"
	"os"
	"syscall"
	"unsafe"
)

// Source: Linux, Documentation/userspace-api/landlock.rst and include/uapi/linux/landlock.h. The numbers of the system
// calls are the same on every architecture.
const (
	sysCreateRuleset = 444
	sysAddRule       = 445
	sysRestrictSelf  = 446
	createVersion    = 1
	rulePathBeneath  = 1
	openPath         = 0x200000 // O_PATH

	fsExecute    = 1 << 0
	fsWriteFile  = 1 << 1
	fsReadFile   = 1 << 2
	fsReadDir    = 1 << 3
	fsRemoveFile = 1 << 5
	fsMakeReg    = 1 << 8
	fsMakeSock   = 1 << 9
	fsABI1       = 1<<13 - 1
	fsRefer      = 1 << 13 // ABI 2
	fsTruncate   = 1 << 14 // ABI 3
	fsIoctlDev   = 1 << 15 // ABI 5
	netBoth      = 1<<0 | 1<<1
	scopeBoth    = 1<<0 | 1<<1 // abstract Unix sockets, signals

	// What may be granted on something that is not a directory.
	fsFileOnly = fsExecute | fsWriteFile | fsReadFile | fsTruncate | fsIoctlDev
)

var granted = map[string]uint64{
	accessRead:    fsReadFile | fsReadDir,
	accessExecute: fsReadFile | fsExecute,
	accessWrite:   fsReadFile | fsReadDir | fsWriteFile | fsTruncate | fsRemoveFile | fsMakeReg | fsMakeSock,
	accessDevice:  fsReadFile | fsWriteFile | fsIoctlDev,
}

// rule grants an access to a file, or to all below a directory.
type rule struct{ path, access string }

// rulesInside are for a process in a root directory of its own: the layout is the same in every cell.
func rulesInside(network bool) []rule {
	rules := []rule{
		{"/", accessRead},
		{sealedVMM, accessExecute},
		{"/scratch", accessWrite},
		{"/run", accessWrite},
		{"/dev/kvm", accessDevice},
		{"/dev/urandom", accessDevice},
	}
	if network {
		rules = append(rules, rule{"/" + tunDevice, accessDevice})
	}
	return rules
}

// landlockVersion is what the kernel has; 0: nothing.
func landlockVersion() int {
	version, _, errno := syscall.RawSyscall(sysCreateRuleset, 0, 0, createVersion)
	if errno != 0 {
		return 0
	}
	return int(version)
}

// handled is all that the kernel's version can forbid; what no rule grants is forbidden then.
func handled(version int) (files, network, scopes uint64) {
	files = fsABI1
	for at, right := range map[int]uint64{2: fsRefer, 3: fsTruncate, 5: fsIoctlDev} {
		if version >= at {
			files |= right
		}
	}
	if version >= 4 {
		network = netBoth
	}
	if version >= 6 {
		scopes = scopeBoth
	}
	return files, network, scopes
}

// restrict applies to this thread, and to what it becomes.
func restrict(rules []rule) error {
	version := landlockVersion()
	if version == 0 {
		return syscall.ENOSYS
	}
	files, network, scopes := handled(version)
	attributes := [3]uint64{files, network, scopes}
	size := uintptr(8) // of the structure, which grew with the versions
	if version >= 4 {
		size = 16
	}
	if version >= 6 {
		size = 24
	}
	ruleset, _, errno := syscall.RawSyscall(sysCreateRuleset, uintptr(unsafe.Pointer(&attributes)), size, 0)
	if errno != 0 {
		return errno
	}
	defer syscall.Close(int(ruleset))
	for _, r := range rules {
		if err := r.add(int(ruleset), files); err != nil {
			return fmt.Errorf("%s: %w", r.path, err)
		}
	}
	if _, _, errno := syscall.RawSyscall(sysRestrictSelf, ruleset, 0, 0); errno != 0 {
		return errno
	}
	return nil
}

func (r rule) add(ruleset int, handled uint64) error {
	file, err := syscall.Open(r.path, openPath|syscall.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(file)
	allowed := granted[r.access] & handled
	if info, err := os.Stat(r.path); err != nil || !info.IsDir() {
		allowed &= fsFileOnly
	}
	beneath := struct {
		allowed uint64
		parent  int32
	}{allowed, int32(file)}
	_, _, errno := syscall.RawSyscall6(sysAddRule, uintptr(ruleset), rulePathBeneath, uintptr(unsafe.Pointer(&beneath)), 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}
