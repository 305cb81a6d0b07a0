package files

import (
	"path/filepath"
	"strconv"
	"syscall"
)

const (
	listBuffer = 32 << 10
	retries    = 8 // while jobs make and remove the very name we switch in
)

// Commit switches in what was staged: each name by one rename, all of them or none.
func (s *Stage) Commit() (result Result, err error) {
	if err := s.finishDirectories(); err != nil {
		return result, err
	}
	root, err := openBelow(s.root, nil)
	if err != nil {
		return result, failed("opening", s.store.Root, err)
	}
	defer closeFD(root)
	c := &commit{stage: s, buffer: make([]byte, listBuffer)}
	if err := c.merge(0, s.tree, root); err != nil {
		if undone := c.undo(); undone != nil {
			return result, fail("internal", err.Error()+"; and it could not be undone: "+undone.Error())
		}
		return result, err
	}
	s.store.remember(s.id, c.result)
	return c.result, nil
}

// finishDirectories gives the staged directories their attributes, the inner ones first.
func (s *Stage) finishDirectories() error {
	for id := len(s.dirs) - 1; id > 0; id-- {
		d := &s.dirs[id]
		path := s.below(uint32(id))
		var err error
		if d.mode&0o700 != 0o700 || uint32(d.mode)&processMask() != 0 {
			err = changeMode(s.tree, path, uint32(d.mode))
		}
		if err == nil && d.flags&Implied == 0 {
			err = changeTime(s.tree, path, d.mtime)
		}
		if err != nil {
			return failed("staging", path, err)
		}
	}
	return nil
}

// commit is one on its way, with the journal that undoes it.
type commit struct {
	stage   *Stage
	buffer  []byte
	journal []step
	removed int
	result  Result
}

// action is what a step did.
type action uint8

const (
	entered  action = iota // a directory that both sides have: its attributes before
	created                // a name moved in
	replaced               // a name exchanged with the one that was there
	removed                // a name moved to the trash, under a number
	dressed                // a file that got other attributes: those before
)

type step struct {
	action action
	mode   uint16
	dir    uint32
	number int
	mtime  int64
	name   string
}

// merge switches in what is staged in directory id: staged and target are open.
func (c *commit) merge(id uint32, staged, target int) error {
	d := &c.stage.dirs[id]
	var before syscall.Stat_t
	if err := syscall.Fstat(target, &before); err != nil {
		return c.failed(id, "", err)
	}
	c.journal = append(c.journal, step{action: entered, dir: id, mode: uint16(before.Mode & 0o7777), mtime: before.Mtim.Nano()})
	for _, change := range d.changes {
		if err := c.change(id, target, change); err != nil {
			return c.failed(id, change.name, err)
		}
	}
	list, err := names(staged, c.buffer)
	if err != nil {
		return c.failed(id, "", err)
	}
	children := make(map[string]uint32, len(d.children))
	for _, child := range d.children {
		children[c.stage.dirs[child].name] = child
	}
	for _, name := range list {
		if child, ok := children[name]; ok {
			err = c.directory(child, staged, target, name)
		} else {
			err = c.plain(id, staged, target, name)
		}
		if err != nil {
			return c.failed(id, name, err)
		}
	}
	return nil
}

// directory switches in directory id: as a whole where there is none, name by name where there is one.
func (c *commit) directory(id uint32, staged, target int, name string) error {
	for range retries {
		there, err := openAt(target, name, openDir, 0)
		switch err {
		case nil:
			defer closeFD(there)
			return c.into(id, staged, there, name)
		case syscall.ENOENT:
			err = c.create(c.stage.dirs[id].parent, staged, target, name)
			if err != syscall.EEXIST {
				return err
			}
		case syscall.ENOTDIR, syscall.ELOOP:
			return fail("conflict", c.stage.pathOf(id, "")+" is a directory in the push, and something else in the workspace")
		default:
			return err
		}
	}
	return syscall.EBUSY
}

func (c *commit) into(id uint32, staged, there int, name string) error {
	from, err := openAt(staged, name, openDir, 0)
	if err != nil {
		return err
	}
	defer closeFD(from)
	if err := c.merge(id, from, there); err != nil {
		return err
	}
	d := c.stage.dirs[id]
	if d.flags&Implied != 0 {
		return nil
	}
	if err := syscall.Fchmod(there, uint32(d.mode)); err != nil {
		return err
	}
	return changeOpenTime(there, d.mtime)
}

// plain switches in what is no directory.
func (c *commit) plain(id uint32, staged, target int, name string) error {
	for range retries {
		st, err := statAt(target, name)
		if err == syscall.ENOENT {
			if err = c.create(id, staged, target, name); err == syscall.EEXIST {
				continue
			}
			return err
		}
		if err != nil {
			return err
		}
		if st.Mode&syscall.S_IFMT == syscall.S_IFDIR {
			return fail("conflict", c.stage.pathOf(id, name)+" is a directory in the workspace, and something else in the push")
		}
		switch err = rename(staged, name, target, name, exchange); err {
		case nil:
			c.journal = append(c.journal, step{action: replaced, dir: id, name: name})
			c.result.Replaced++
			return nil
		case syscall.ENOENT: // it has just gone
		default:
			return err
		}
	}
	return syscall.EBUSY
}

func (c *commit) create(id uint32, staged, target int, name string) error {
	err := rename(staged, name, target, name, noReplace)
	if err == nil {
		c.journal = append(c.journal, step{action: created, dir: id, name: name})
		c.result.Created++
	}
	return err
}

func (c *commit) change(id uint32, target int, change change) error {
	if change.kind == Attributes {
		return c.dress(id, target, change)
	}
	number := c.removed
	err := rename(target, change.name, c.stage.trash, strconv.Itoa(number), noReplace)
	if err == syscall.ENOENT {
		return nil // somebody else removed it
	}
	if err == nil {
		c.removed++
		c.journal = append(c.journal, step{action: removed, dir: id, number: number, name: change.name})
		c.result.Removed++
	}
	return err
}

// dress changes the attributes of a file, or the time of a symbolic link.
func (c *commit) dress(id uint32, target int, change change) error {
	st, err := statAt(target, change.name)
	if err != nil {
		return err
	}
	before := step{action: dressed, dir: id, name: change.name, mode: uint16(st.Mode & 0o7777), mtime: st.Mtim.Nano()}
	c.journal = append(c.journal, before)
	c.result.Attributes++
	return setAttributes(target, change.name, st.Mode, uint32(change.mode)&permBits, change.mtime)
}

// setAttributes changes an entry whose kind is known from its mode before. A regular file is opened for it, so that
// nothing that takes its place is touched.
func setAttributes(dir int, name string, kind uint32, mode uint32, mtime int64) error {
	if kind&syscall.S_IFMT == syscall.S_IFLNK {
		return changeTime(dir, name, mtime)
	}
	if kind&syscall.S_IFMT != syscall.S_IFREG {
		return fail("conflict", name+" is not a regular file any more")
	}
	fd, err := openAt(dir, name, openRead, 0)
	if err != nil {
		return err
	}
	defer closeFD(fd)
	if err := syscall.Fchmod(fd, mode); err != nil {
		return err
	}
	return changeOpenTime(fd, mtime)
}

func (c *commit) failed(id uint32, name string, err error) error {
	return failed("switching in", filepath.Join(c.stage.store.Root, c.stage.pathOf(id, name)), err)
}

// undo takes back all steps, the last one first; it goes on after a failure and returns the first.
func (c *commit) undo() (first error) {
	target, staged, open := noFD, noFD, uint32(0)
	defer func() { closeFD(target); closeFD(staged) }()
	for i := len(c.journal) - 1; i >= 0; i-- {
		step := c.journal[i]
		var err error
		if target == noFD || step.dir != open {
			closeFD(target)
			closeFD(staged)
			open = step.dir
			staged, _ = openAt(c.stage.tree, c.stage.below(open), openDir, 0)
			target, err = openBelow(c.stage.root, c.stage.parts(open))
		}
		if err == nil {
			err = c.takeBack(step, staged, target)
		}
		if err != nil && first == nil {
			first = c.failed(step.dir, step.name, err)
		}
	}
	return first
}

func (c *commit) takeBack(step step, staged, target int) error {
	switch step.action {
	case created:
		return rename(target, step.name, staged, step.name, noReplace)
	case replaced:
		return rename(target, step.name, staged, step.name, exchange)
	case removed:
		return rename(c.stage.trash, strconv.Itoa(step.number), target, step.name, noReplace)
	case dressed:
		st, err := statAt(target, step.name)
		if err != nil {
			return err
		}
		return setAttributes(target, step.name, st.Mode, uint32(step.mode), step.mtime)
	}
	if err := syscall.Fchmod(target, uint32(step.mode)); err != nil {
		return err
	}
	return changeOpenTime(target, step.mtime)
}
