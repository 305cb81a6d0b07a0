package files

import (
	"crypto/sha256"
	"encoding/binary"
	"io"
	"syscall"
)

const blockSize = 512

// contents adds a file with its bytes. Exactly as many follow as its record says, also when it changes meanwhile.
func (w *Walk) contents(dir int, r Record, name string) error {
	fd, err := openAt(dir, name, openRead, 0)
	if err != nil {
		return skipGone(err)
	}
	defer closeFD(fd)
	var st syscall.Stat_t
	if err := syscall.Fstat(fd, &st); err != nil {
		return err
	}
	if kindOf(st.Mode) != File {
		return nil // something else has just taken its place
	}
	r.Size, r.Mtime, r.Mode = uint64(st.Size), st.Mtim.Nano(), uint16(st.Mode&0o7777)
	w.add(r)
	w.Bytes += st.Size
	end, offset := st.Size, int64(0)
	sparse := st.Blocks*blockSize < st.Size
	for offset < end {
		start, stop := offset, end
		if sparse {
			start, stop = extent(fd, offset, end)
		}
		if err := w.hole(start - offset); err != nil {
			return err
		}
		if offset, err = w.data(fd, start, stop); err != nil {
			return err
		}
		if offset < stop { // it became shorter
			w.Changed++
			return w.hole(end - offset)
		}
	}
	var after syscall.Stat_t
	if syscall.Fstat(fd, &after) == nil && (after.Size != st.Size || after.Mtim != st.Mtim) {
		w.Changed++
	}
	return nil
}

// extent finds the next data of a sparse file; without any, it is empty and at the end.
func extent(fd int, offset, end int64) (start, stop int64) {
	start, err := syscall.Seek(fd, offset, seekData)
	if err == syscall.ENXIO {
		return end, end
	}
	if err != nil {
		return offset, end
	}
	stop, err = syscall.Seek(fd, start, seekHole)
	if err != nil || stop > end {
		stop = end
	}
	return min(start, end), stop
}

func (w *Walk) hole(size int64) error {
	if size == 0 {
		return nil
	}
	if err := w.room(holeSize); err != nil {
		return err
	}
	w.out = Append(w.out, Record{Kind: Hole, Size: uint64(size)})
	return nil
}

// room flushes unless that many bytes still fit.
func (w *Walk) room(size int) (err error) {
	if w.stop.Load() {
		return ErrStopped
	}
	if cap(w.out)-len(w.out) < size {
		w.out, err = w.Flush(w.out)
	}
	return err
}

// data reads straight into the frame; the end of it is short of stop if the file is.
func (w *Walk) data(fd int, start, stop int64) (int64, error) {
	for start < stop {
		if err := w.room(dataHead + 1); err != nil {
			return start, err
		}
		at := len(w.out) + dataHead
		space := w.out[at:min(cap(w.out), at+int(min(stop-start, int64(cap(w.out)))))]
		n, err := readSome(fd, space, start)
		if err != nil {
			return start, err
		}
		if n == 0 {
			return start, nil
		}
		w.out = w.out[:at+n]
		w.out[at-dataHead] = byte(Data)
		binary.BigEndian.PutUint32(w.out[at-dataHead+1:], uint32(n))
		start += int64(n)
	}
	return start, nil
}

// Digests gives the SHA-256 of regular files below the workspace; nil for what is none.
func (s *Store) Digests(paths [][]byte) ([][]byte, error) {
	root, err := openRoot(s.Root)
	if err != nil {
		return nil, err
	}
	defer closeFD(root)
	list := make([][]byte, len(paths))
	buffer := make([]byte, 256<<10)
	for i, path := range paths {
		dir, name, err := openEntry(root, string(path))
		if err != nil {
			continue
		}
		list[i] = digest(dir, name, buffer)
		closeFD(dir)
	}
	return list, nil
}

func digest(dir int, name string, buffer []byte) []byte {
	fd, err := openAt(dir, name, openRead, 0)
	if err != nil {
		return nil
	}
	defer closeFD(fd)
	var st syscall.Stat_t
	if syscall.Fstat(fd, &st) != nil || kindOf(st.Mode) != File {
		return nil
	}
	hash := sha256.New()
	for offset := int64(0); ; {
		n, err := readSome(fd, buffer, offset)
		if err != nil && err != io.EOF {
			return nil
		}
		if n == 0 {
			return hash.Sum(nil)
		}
		hash.Write(buffer[:n])
		offset += int64(n)
	}
}
