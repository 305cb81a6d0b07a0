package confine

import (
	"fmt"
	"os"
	"path"
	"runtime"
	"slices"
	"syscall"
)

const (
	// SealName is the name under which the jailer starts us, in the root directory it has made.
	SealName   = "firecracker-seal"
	sealedVMM  = "/firecracker"
	required   = "--landlock=required"
	networked  = "--network" // the VMM opens a TAP device
	exitFailed = 1
)

// Main runs `pyro-agent confine <plan>` or `pyro-agent confine probe`; it returns only when something failed, or to
// answer the probe. Locked to one thread: privileges and Landlock belong to a thread until the exec.
func Main(args []string) int {
	runtime.LockOSThread()
	if len(args) != 1 {
		return complain(fmt.Errorf("usage: pyro-agent confine <plan> | probe"))
	}
	switch args[0] {
	case "probe":
		return probe()
	case "probe-child":
		return probeChild()
	}
	p, err := parsePlan(args[0])
	if err == nil {
		err = p.enter()
	}
	return complain(err)
}

// Seal runs in the jail, as the machine's user: the last step before Firecracker. args is what the jailer and the plan
// gave for Firecracker.
func Seal(args []string) int {
	runtime.LockOSThread()
	args, network := without(args, networked)
	args, landlock := without(args, required)
	var ruleset []rule
	if landlock {
		ruleset = rulesInside(network)
	}
	// Nothing needs this copy of us any more; it lies in memory (tmpfs).
	_ = os.Remove("/" + SealName)
	return complain(become(append([]string{sealedVMM}, args...), ruleset))
}

// without takes a word of ours out of what is Firecracker's; whether it was there.
func without(args []string, word string) ([]string, bool) {
	at := slices.Index(args, word)
	if at < 0 {
		return args, false
	}
	return slices.Delete(slices.Clone(args), at, at+1), true
}

func complain(err error) int {
	fmt.Fprintln(os.Stderr, "pyro-agent confine:", err)
	return exitFailed
}

// enter makes the cell and becomes what runs in it.
func (p *plan) enter() error {
	if p.Kind == kindLandlock {
		return p.enterLinks()
	}
	if err := p.mountRoot(); err != nil {
		return err
	}
	if p.Kind == kindJailer {
		return Execute(p.Argv)
	}
	if err := pivot(p.Root); err != nil {
		return err
	}
	var ruleset []rule
	if p.Landlock {
		ruleset = rulesInside(p.binds(tunDevice))
	}
	return become(p.Argv, ruleset)
}

// enterLinks is for hosts without user namespaces: a directory of links, so that the VMM's paths are the same as in the
// other kinds, and Landlock to make them the only ones.
func (p *plan) enterLinks() error {
	var ruleset []rule
	for _, b := range p.Binds {
		if b.Access != accessDevice {
			if err := os.Symlink(b.Source, path.Join(p.Root, b.Target)); err != nil {
				return err
			}
		}
		ruleset = append(ruleset, rule{b.Source, b.Access})
	}
	if !p.Landlock {
		ruleset = nil
	}
	if err := os.Chdir(p.Root); err != nil {
		return err
	}
	return become(p.Argv, append(ruleset, rule{p.Root, accessRead}))
}

// Become drops all privileges and replaces this process with a program.
func Become(argv []string) error { return become(argv, nil) }

// become drops all there is to drop, and replaces this process. No rules: no Landlock.
func become(argv []string, ruleset []rule) error {
	// Again, because of the jailer's change of user. The parent is the launcher.
	if err := dieWithParent(); err != nil {
		return err
	}
	if err := dropPrivileges(); err != nil {
		return err
	}
	if ruleset != nil {
		if err := restrict(ruleset); err != nil {
			return fmt.Errorf("landlock: %w", err)
		}
	}
	return Execute(argv)
}

// Execute replaces this process with a program, and drops nothing.
func Execute(argv []string) error {
	err := syscall.Exec(argv[0], argv, []string{"PATH=/usr/bin:/bin", "LC_ALL=C"})
	return fmt.Errorf("start %s: %w", argv[0], err)
}
