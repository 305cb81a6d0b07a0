// Package confine is what stands between the launcher and the VMM: it gives the VMM a root directory with nothing in it
// but what a machine needs, takes away every privilege, and becomes the VMM (or Firecracker's jailer).
package confine

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
)

const (
	// kindJailer: as root. The jailer makes the root directory and drops to the machine's user; it starts us again in
	// there, under the name of SealName, and we become Firecracker.
	kindJailer = "jailer"
	// kindNamespaces: an ordinary user in namespaces of the launcher's making.
	kindNamespaces = "namespaces"
	// kindLandlock: an ordinary user where user namespaces are denied.
	kindLandlock = "landlock"

	accessRead    = "read"
	accessWrite   = "write"
	accessExecute = "execute"
	accessDevice  = "device"

	tunDevice = "dev/net/tun"
)

var accesses = []string{accessRead, accessWrite, accessExecute, accessDevice}

// plan is what one cell is made from.
type plan struct {
	Kind     string   `json:"kind"`
	Root     string   `json:"root"`
	Binds    []bind   `json:"binds"`
	Landlock bool     `json:"landlock"` // the kernel has it, so that doing without is an error
	Argv     []string `json:"argv"`
}

// bind is a file or directory of the host and its place below the root.
type bind struct {
	Source string `json:"source"`
	Target string `json:"target"`
	Access string `json:"access"`
}

func parsePlan(text string) (*plan, error) {
	decoder := json.NewDecoder(bytes.NewReader([]byte(text)))
	decoder.DisallowUnknownFields()
	p := &plan{}
	if err := decoder.Decode(p); err != nil {
		return nil, fmt.Errorf("plan: %w", err)
	}
	if !slices.Contains([]string{kindJailer, kindNamespaces, kindLandlock}, p.Kind) {
		return nil, fmt.Errorf("plan: unknown kind %.40q", p.Kind)
	}
	if len(p.Argv) == 0 || !path.IsAbs(p.Argv[0]) || !isClean(p.Root) || p.Root == "/" {
		return nil, errors.New("plan: argv and root must be absolute paths")
	}
	for _, b := range p.Binds {
		if !isClean(b.Source) || !isBelow(b.Target) || !slices.Contains(accesses, b.Access) {
			return nil, fmt.Errorf("plan: impossible bind %.100q", b)
		}
	}
	return p, nil
}

func (p *plan) binds(target string) bool {
	return slices.ContainsFunc(p.Binds, func(b bind) bool { return b.Target == target })
}

func isClean(name string) bool { return path.IsAbs(name) && path.Clean(name) == name }

func isBelow(name string) bool {
	return name != "" && path.Clean("/"+name) == "/"+name && !strings.Contains(name, "\x00")
}
