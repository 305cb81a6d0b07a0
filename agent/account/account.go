// Package account finds users and groups in the guest's own /etc/passwd and /etc/group.
//
// The files belong to the image and may be anything, so reading is bounded and bad lines are passed over.
package account

import (
	"bufio"
	"errors"
	"io"
	"os"
	"strconv"
	"strings"
)

// ErrUnknown is a user or group that the image does not know.
var ErrUnknown = errors.New("no such user")

const (
	maxFile   = 4 << 20
	maxLine   = 64 << 10
	maxGroups = 1024
)

// Account is who a job runs as.
type Account struct {
	UID, GID uint32
	Groups   []uint32 // supplementary
	Name     string   // the user's name, or its number when it has none
	Home     string   // empty when unknown
	Shell    string   // empty when unknown
}

// Files are the paths of the account files.
type Files struct{ Passwd, Group string }

// System are the files of the running system.
var System = Files{"/etc/passwd", "/etc/group"}

// Lookup resolves `name`, `uid`, `name:group`, `uid:gid`; empty is root. A number works without an entry. A user
// without an explicit group gets its supplementary groups too, as login(1) would give them.
func (f Files) Lookup(spec string) (Account, error) {
	user, group, explicit := strings.Cut(spec, ":")
	if user == "" {
		user = "0"
	}
	a, err := f.user(user)
	if err != nil {
		return a, err
	}
	if explicit {
		a.GID, err = f.group(group)
		return a, err
	}
	a.Groups = f.supplementary(a.Name, a.GID)
	return a, nil
}

func (f Files) user(want string) (a Account, err error) {
	uid, numeric := parseID(want)
	found := false
	scan(f.Passwd, 7, func(fields []string) bool {
		id, ok := parseID(fields[2])
		gid, okGroup := parseID(fields[3])
		// A name wins over a number, as everywhere; a user may be called "1000".
		if ok && okGroup && (fields[0] == want || numeric && id == uid && !found) {
			a = Account{UID: id, GID: gid, Name: fields[0], Home: fields[5], Shell: fields[6]}
			found = true
			return fields[0] == want
		}
		return false
	})
	switch {
	case found:
		return a, nil
	case numeric && uid == 0:
		return Account{Name: "root", Home: "/root"}, nil
	case numeric:
		return Account{UID: uid, GID: 0, Name: want}, nil
	}
	return a, ErrUnknown
}

func (f Files) group(want string) (gid uint32, err error) {
	gid, numeric := parseID(want)
	found := numeric
	scan(f.Group, 3, func(fields []string) bool {
		id, ok := parseID(fields[2])
		if ok && fields[0] == want {
			gid, found = id, true
			return true
		}
		return false
	})
	if !found {
		return 0, ErrUnknown
	}
	return gid, nil
}

func (f Files) supplementary(name string, primary uint32) (groups []uint32) {
	scan(f.Group, 4, func(fields []string) bool {
		id, ok := parseID(fields[2])
		if ok && id != primary && member(fields[3], name) {
			groups = append(groups, id)
		}
		return len(groups) == maxGroups
	})
	return groups
}

func member(list, name string) bool {
	for list != "" {
		var one string
		if one, list, _ = strings.Cut(list, ","); one == name {
			return true
		}
	}
	return false
}

// parseID takes decimal ids; the largest number means "no id" to the kernel.
func parseID(s string) (uint32, bool) {
	n, err := strconv.ParseUint(s, 10, 32)
	return uint32(n), err == nil && n != 0xffffffff
}

// scan calls visit with the fields of each well-formed line until it returns true.
func scan(path string, least int, visit func([]string) bool) {
	file, err := os.Open(path)
	if err != nil {
		return // an image without accounts: numbers still work
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		return
	}
	lines := bufio.NewScanner(io.LimitReader(file, maxFile))
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		fields := strings.Split(lines.Text(), ":")
		if len(fields) >= least && fields[0] != "" && visit(fields) {
			return
		}
	}
}
