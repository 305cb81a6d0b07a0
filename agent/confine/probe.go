package confine

import (
	"fmt"
	"os"
	"syscall"
)

// probe says what this host lets an ordinary user have: `landlock=<version> namespaces=<yes|no>`. It tries what a cell
// of kind namespaces needs, because some hosts let the namespace be made and deny its use (AppArmor); why is on stderr.
func probe() int {
	namespaces := "yes"
	if err := tryNamespaces(); err != nil {
		complain(err)
		namespaces = "no"
	}
	fmt.Printf("landlock=%d namespaces=%s\n", landlockVersion(), namespaces)
	return 0
}

func tryNamespaces() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	attributes := &syscall.ProcAttr{
		Files: []uintptr{0, 1, 2},
		Sys:   probeAttributes(),
	}
	child, err := syscall.ForkExec(self, []string{self, "confine", "probe-child"}, attributes)
	if err != nil {
		return fmt.Errorf("make namespaces: %w", err)
	}
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(child, &status, 0, nil); err != nil {
		return err
	}
	if !status.Exited() || status.ExitStatus() != 0 {
		return fmt.Errorf("use namespaces: status %d", status)
	}
	return nil
}

// probeAttributes are those of a VMM in a cell of kind namespaces (launch.isolate).
func probeAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET |
			syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: os.Getuid(), HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: os.Getgid(), HostID: os.Getgid(), Size: 1}},
		AmbientCaps: []uintptr{capSetpcap, capSysAdmin},
		Pdeathsig:   syscall.SIGKILL,
	}
}

// probeChild makes a root directory as mountRoot and pivot do, of nothing.
func probeChild() int {
	p := &plan{Root: "/tmp", Binds: []bind{{Source: "/dev/urandom", Target: "dev/urandom", Access: accessDevice}}}
	err := p.mountRoot()
	if err == nil {
		err = pivot(p.Root)
	}
	if err == nil {
		err = dropPrivileges()
	}
	if err != nil {
		return complain(err)
	}
	return 0
}
