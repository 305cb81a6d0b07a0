package files

import (
	"fmt"
	"strings"
	"syscall"
)

// recordsMost bounds what a push may make us keep in memory.
const recordsMost = 4 << 20

// Stage takes the records of one push and keeps them beside the workspace. For one goroutine.
type Stage struct {
	store *Store
	id    string
	place string

	root  int // the workspace
	tree  int // what was staged so far; its root stands for the workspace
	trash int // what a commit takes away

	dirs  []directory
	dirID uint32 // the directory that dirFD is, if it is one
	dirFD int

	file    int // being written
	staged  Record
	name    [nameMost]byte
	written uint64
	solid   uint64 // where its last byte of data ends

	records uint64
	bytes   uint64
	sum     uint32
}

// directory is one of the push; the first is the workspace. Its number is its place in the list.
type directory struct {
	parent   uint32
	name     string
	flags    uint8
	mode     uint16
	mtime    int64
	children []uint32
	changes  []change
}

// change is something to do to what the workspace has already.
type change struct {
	kind  Kind // Remove or Attributes
	mode  uint16
	mtime int64
	name  string
}

// ID is what the host called it.
func (s *Stage) ID() string { return s.id }

// Take stages the records of one frame.
func (s *Stage) Take(payload []byte) error {
	s.sum = addSum(s.sum, payload)
	for len(payload) > 0 {
		record, size, err := Decode(payload)
		if err != nil {
			return failed("staging", "", err)
		}
		if err := s.take(record); err != nil {
			return err
		}
		payload = payload[size:]
	}
	return nil
}

func (s *Stage) take(r Record) error {
	switch r.Kind {
	case Data:
		return s.data(r.Data)
	case Hole:
		return s.hole(r.Size)
	}
	if s.file != noFD {
		return fail("bad_request", "a file has fewer bytes than it should")
	}
	if s.records++; s.records > recordsMost || r.Dir >= uint32(len(s.dirs)) {
		return fail("bad_request", "too many records, or a directory that was not named before")
	}
	err := s.named(r)
	if err != nil {
		return failed("staging", s.pathOf(r.Dir, string(r.Name)), err)
	}
	return nil
}

func (s *Stage) named(r Record) error {
	name := string(r.Name)
	if r.Kind == Remove || r.Kind == Attributes {
		s.dirs[r.Dir].changes = append(s.dirs[r.Dir].changes, change{r.Kind, r.Mode, r.Mtime, name})
		return nil
	}
	dir, err := s.open(r.Dir)
	if err != nil {
		return err
	}
	switch r.Kind {
	case Directory:
		return s.directory(dir, r, name)
	case File:
		return s.begin(dir, r, name)
	case Symlink:
		if err := symlink(string(r.Target), dir, name); err != nil {
			return err
		}
		return s.dress(dir, r, name)
	case Link:
		return s.link(dir, r, name)
	}
	return ErrRecord
}

func (s *Stage) directory(dir int, r Record, name string) error {
	if err := makeDir(dir, name, uint32(r.Mode)&permBits|0o700); err != nil {
		return err
	}
	if r.UID|r.GID != 0 {
		if err := changeOwner(dir, name, r.UID, r.GID); err != nil {
			return err
		}
	}
	id := uint32(len(s.dirs))
	s.dirs = append(s.dirs, directory{parent: r.Dir, name: name, flags: r.Flags, mode: r.Mode & permBits, mtime: r.Mtime})
	s.dirs[r.Dir].children = append(s.dirs[r.Dir].children, id)
	return nil
}

// dress gives a symbolic link its owner and time.
func (s *Stage) dress(dir int, r Record, name string) error {
	if r.UID|r.GID != 0 {
		if err := changeOwner(dir, name, r.UID, r.GID); err != nil {
			return err
		}
	}
	return changeTime(dir, name, r.Mtime)
}

// link makes another name of a file that was staged before.
func (s *Stage) link(dir int, r Record, name string) error {
	if r.TargetDir >= uint32(len(s.dirs)) {
		return ErrRecord
	}
	from, err := openAt(s.tree, s.below(r.TargetDir), openDir, 0)
	if err != nil {
		return err
	}
	defer closeFD(from)
	st, err := statAt(from, string(r.Target))
	if err != nil {
		return err
	}
	if st.Mode&syscall.S_IFMT != syscall.S_IFREG {
		return ErrRecord
	}
	return hardLink(from, string(r.Target), dir, name)
}

func (s *Stage) begin(dir int, r Record, name string) error {
	fd, err := openAt(dir, name, openWrite, uint32(r.Mode)&permBits)
	if err != nil {
		return err
	}
	s.file, s.staged, s.written, s.solid = fd, r, 0, 0
	s.staged.Name = s.name[:copy(s.name[:], r.Name)]
	s.staged.Target = nil
	return s.finishFile()
}

func (s *Stage) data(b []byte) error {
	if s.file == noFD || uint64(len(b)) > s.staged.Size-s.written {
		return fail("bad_request", "content without a file, or more than the file has")
	}
	if err := writeAll(s.file, b, int64(s.written)); err != nil {
		return failed("writing", s.pathOf(s.staged.Dir, string(s.staged.Name)), err)
	}
	s.written += uint64(len(b))
	s.solid = s.written
	return s.finishFile()
}

func (s *Stage) hole(size uint64) error {
	if s.file == noFD || size == 0 || size > s.staged.Size-s.written {
		return fail("bad_request", "a hole without a file, or a larger one than the file has")
	}
	s.written += size
	return s.finishFile()
}

// finishFile closes the file once it is whole.
func (s *Stage) finishFile() (err error) {
	if s.written < s.staged.Size {
		return nil
	}
	fd, r := s.file, s.staged
	s.file = noFD
	if s.solid < r.Size {
		err = syscall.Ftruncate(fd, int64(r.Size))
	}
	if err == nil && r.UID|r.GID != 0 {
		err = syscall.Fchown(fd, int(r.UID), int(r.GID))
	}
	if mode := uint32(r.Mode) & permBits; err == nil && mode&processMask() != 0 {
		err = syscall.Fchmod(fd, mode)
	}
	if err == nil {
		err = changeOpenTime(fd, r.Mtime)
	}
	if closed := closeFD(fd); err == nil {
		err = closed
	}
	s.bytes += r.Size
	return failed("writing", s.pathOf(r.Dir, string(r.Name)), err)
}

// open gives the staged directory id, open until the next call.
func (s *Stage) open(id uint32) (int, error) {
	if s.dirFD != noFD && s.dirID == id {
		return s.dirFD, nil
	}
	closeFD(s.dirFD)
	fd, err := openAt(s.tree, s.below(id), openDir, 0)
	s.dirFD, s.dirID = fd, id
	return fd, err
}

// below is the path of directory id in the staging area. Nobody but us writes there, and a name that is a
// directory of ours is no symbolic link.
func (s *Stage) below(id uint32) string {
	if path := s.pathOf(id, ""); path != "" {
		return path
	}
	return "."
}

// pathOf is the path of a name in directory id, from the workspace on.
func (s *Stage) pathOf(id uint32, name string) string {
	var parts []string
	if name != "" {
		parts = append(parts, name)
	}
	for ; id != 0; id = s.dirs[id].parent {
		parts = append(parts, s.dirs[id].name)
	}
	var path strings.Builder
	for i := len(parts) - 1; i >= 0; i-- {
		path.WriteString(parts[i])
		if i > 0 {
			path.WriteByte('/')
		}
	}
	return path.String()
}

// parts are the names on the path of directory id.
func (s *Stage) parts(id uint32) (list []string) {
	if path := s.pathOf(id, ""); path != "" {
		list = strings.Split(path, "/")
	}
	return list
}

// Check compares what arrived with what the host says it sent.
func (s *Stage) Check(records, bytes uint64, sum uint32) error {
	if s.file != noFD || records != s.records || bytes != s.bytes || sum != s.sum {
		return fail("bad_request", fmt.Sprintf("%d records of %d and %d bytes of %d arrived, checksum %08x for %08x",
			s.records, records, s.bytes, bytes, s.sum, sum))
	}
	return nil
}

// Abort forgets what was staged.
func (s *Stage) Abort() {
	s.close()
	s.store.release(s.place)
}

func (s *Stage) close() {
	for _, fd := range []*int{&s.root, &s.tree, &s.trash, &s.dirFD, &s.file} {
		closeFD(*fd)
		*fd = noFD
	}
}
