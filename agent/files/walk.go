package files

import (
	"errors"
	"sync/atomic"
	"syscall"
)

const (
	depthMost = 1000
	// RoomLeast is what a walk needs of a frame's payload to go on.
	RoomLeast = headSize + nameMost + 2 + targetMost + sizeSize
)

// ErrStopped ends a walk whose client is gone.
var ErrStopped = errors.New("the walk was stopped")

// Walk gives the records of a file or a directory in the workspace, with the contents or without.
type Walk struct {
	Contents bool
	// Flush sends what stands in the buffer, and gives the empty buffer for what comes next; its capacity is never
	// exceeded, and at least RoomLeast.
	Flush func([]byte) ([]byte, error)

	Records int64
	Bytes   int64
	Changed int64 // files whose size changed while they were read

	root    int
	path    string
	dir     int // that holds what is walked
	name    string
	kind    Kind
	stop    atomic.Bool
	out     []byte
	next    uint32
	links   map[inode]place
	list    []byte
	targets []byte
}

type inode struct{ device, number uint64 }

type place struct {
	dir  uint32
	name string
}

// Open finds a path below the workspace. Kind is then Directory, File, or 0 if there is nothing.
func (s *Store) Open(path string) (*Walk, Kind, error) {
	root, err := openRoot(s.Root)
	if err != nil {
		return nil, 0, err
	}
	w := &Walk{root: root, path: path, dir: noFD}
	if w.dir, w.name, err = openEntry(root, path); err == nil {
		err = w.look()
	}
	if err != nil {
		w.Close()
	}
	var known *Failure
	if errors.As(err, &known) && known.Code == "no_such_path" {
		return nil, 0, nil
	}
	return w, w.kind, err
}

func (w *Walk) look() error {
	if w.name == "" {
		w.kind = Directory
		return nil
	}
	st, err := statAt(w.dir, w.name)
	if err != nil {
		return failed("looking at", w.path, err)
	}
	if w.kind = kindOf(st.Mode); w.kind == Other || w.kind == Symlink {
		return fail("bad_path", w.path+" is neither a file nor a directory")
	}
	return nil
}

func kindOf(mode uint32) Kind {
	switch mode & syscall.S_IFMT {
	case syscall.S_IFDIR:
		return Directory
	case syscall.S_IFREG:
		return File
	case syscall.S_IFLNK:
		return Symlink
	}
	return Other
}

// Close releases what Open took.
func (w *Walk) Close() {
	closeFD(w.root)
	closeFD(w.dir)
	w.root, w.dir = noFD, noFD
}

// Stop ends the walk soon.
func (w *Walk) Stop() { w.stop.Store(true) }

// Run walks: a directory's own names follow its record, and it is number 0 if it is what was asked for.
func (w *Walk) Run(buffer []byte) error {
	w.out = buffer
	w.list = make([]byte, listBuffer)
	w.targets = make([]byte, targetMost+1)
	w.links = map[inode]place{}
	w.next = 1
	var err error
	if w.kind == Directory {
		var fd int
		if w.name == "" {
			fd, err = openBelow(w.dir, nil)
		} else {
			fd, err = openAt(w.dir, w.name, openDir, 0)
		}
		if err == nil {
			err = w.directory(fd, 0, 0)
		}
	} else {
		err = w.entry(w.dir, 0, w.name, 0)
	}
	if err != nil {
		return failed("reading", w.path, err)
	}
	_, err = w.Flush(w.out)
	return err
}

// directory walks an open directory, and closes it.
func (w *Walk) directory(fd int, id uint32, depth int) error {
	defer closeFD(fd)
	if depth > depthMost {
		return fail("bad_path", w.path+" holds directories in directories without end")
	}
	list, err := names(fd, w.list)
	if err != nil {
		return err
	}
	for _, name := range list {
		if err := w.entry(fd, id, name, depth); err != nil {
			return err
		}
	}
	return nil
}

func (w *Walk) entry(dir int, id uint32, name string, depth int) error {
	if w.stop.Load() {
		return ErrStopped
	}
	st, err := statAt(dir, name)
	if err == syscall.ENOENT {
		return nil // it has just gone
	}
	if err != nil {
		return err
	}
	if cap(w.out)-len(w.out) < RoomLeast {
		if w.out, err = w.Flush(w.out); err != nil {
			return err
		}
	}
	r := Record{
		Kind: kindOf(st.Mode), Mode: uint16(st.Mode & 0o7777), Dir: id, Mtime: st.Mtim.Nano(),
		UID: st.Uid, GID: st.Gid, Name: []byte(name),
	}
	switch r.Kind {
	case Directory:
		return w.enter(dir, r, name, depth)
	case Symlink:
		n, err := readLink(dir, name, w.targets)
		if err != nil {
			return skipGone(err)
		}
		r.Target = w.targets[:n]
	case File:
		return w.file(dir, r, name, st)
	}
	w.add(r)
	return nil
}

// skipGone passes over what was removed or replaced between two looks at it.
func skipGone(err error) error {
	switch err {
	case syscall.ENOENT, syscall.EINVAL, syscall.ELOOP, syscall.ENOTDIR:
		return nil
	}
	return err
}

func (w *Walk) add(r Record) {
	w.out = Append(w.out, r)
	w.Records++
}

func (w *Walk) enter(dir int, r Record, name string, depth int) error {
	fd, err := openAt(dir, name, openDir, 0)
	if err != nil {
		return skipGone(err)
	}
	id := w.next
	w.next++
	w.add(r)
	return w.directory(fd, id, depth+1)
}

func (w *Walk) file(dir int, r Record, name string, st syscall.Stat_t) error {
	if st.Nlink > 1 {
		key := inode{uint64(st.Dev), st.Ino}
		if first, known := w.links[key]; known {
			r.Kind, r.TargetDir, r.Target = Link, first.dir, []byte(first.name)
			w.add(r)
			return nil
		}
		before := w.Records
		defer func() {
			if w.Records > before { // it was not gone when it was its turn
				w.links[key] = place{r.Dir, name}
			}
		}()
	}
	r.Size = uint64(st.Size)
	if !w.Contents {
		w.Bytes += st.Size
		w.add(r)
		return nil
	}
	return w.contents(dir, r, name)
}
