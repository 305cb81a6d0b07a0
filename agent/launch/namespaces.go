package launch

import (
	"fmt"
	"os"
	"slices"
	"syscall"
)

// namespaceFlags are the namespaces a plan may ask for. A pid namespace ends with its first process, which is the VMM.
var namespaceFlags = map[string]uintptr{
	"ipc":   syscall.CLONE_NEWIPC,
	"mount": syscall.CLONE_NEWNS,
	"net":   syscall.CLONE_NEWNET,
	"pid":   syscall.CLONE_NEWPID,
	"user":  syscall.CLONE_NEWUSER,
	"uts":   syscall.CLONE_NEWUTS,
}

// What `pyro-agent confine` needs in a user namespace, to make a root directory and to drop everything else; with the
// next two, what `pyro-agent netns` needs.
const (
	capSetpcap        = 8
	capSysAdmin       = 21
	capNetBindService = 10
	capNetAdmin       = 12
)

func (p *plan) checkNamespaces() error {
	for i, name := range p.Namespaces {
		if _, known := namespaceFlags[name]; !known || slices.Contains(p.Namespaces[:i], name) {
			return fmt.Errorf("unknown or repeated namespace %.40q", name)
		}
	}
	if slices.Contains(p.Namespaces, "user") && p.UID >= 0 {
		return fmt.Errorf("a user namespace and a uid exclude each other")
	}
	return nil
}

func (p *plan) isolate(attributes *syscall.SysProcAttr) {
	for _, name := range p.Namespaces {
		if name != "net" || !p.networked() { // that one is made by the stage
			attributes.Cloneflags |= namespaceFlags[name]
		}
	}
	if !slices.Contains(p.Namespaces, "user") {
		return
	}
	// One user and one group, by their own numbers: nobody is root in there.
	attributes.UidMappings = []syscall.SysProcIDMap{{ContainerID: os.Getuid(), HostID: os.Getuid(), Size: 1}}
	attributes.GidMappings = []syscall.SysProcIDMap{{ContainerID: os.Getgid(), HostID: os.Getgid(), Size: 1}}
	attributes.AmbientCaps = []uintptr{capSetpcap, capSysAdmin}
	if p.networked() {
		attributes.AmbientCaps = append(attributes.AmbientCaps, capNetBindService, capNetAdmin)
	}
}
