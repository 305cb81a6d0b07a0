// Package files keeps what a push stages until it is switched in, and reads what a pull asks for.
//
// Both travel as records (docs/protocol.md). A record names its place by the number of a directory that came before it,
// and one name in it: no record can say "..", or go through a symbolic link.
package files

import (
	"encoding/binary"
	"errors"
)

// Kind says what a record is.
type Kind uint8

// The kinds. Other stands for sockets, FIFOs and devices: named, never carried.
const (
	Directory  Kind = 1
	File       Kind = 2
	Data       Kind = 3
	Hole       Kind = 4
	Symlink    Kind = 5
	Link       Kind = 6
	Remove     Kind = 7
	Attributes Kind = 8
	Other      Kind = 9
)

// Implied marks a directory that is only on the way: if it exists, its attributes stay.
const Implied = 1

const (
	headSize  = 26
	dataHead  = 5
	holeSize  = 9
	sizeSize  = 8
	emptyName = 0
)

// ErrRecord is what every malformed record is answered with.
var ErrRecord = errors.New("a record is malformed")

// Record is one of them; the byte slices point into what it was decoded from.
type Record struct {
	Kind      Kind
	Flags     uint8
	Mode      uint16
	Dir       uint32
	Mtime     int64
	UID, GID  uint32
	Name      []byte
	Size      uint64 // of a file, or of a hole
	Target    []byte // of a symbolic link; of a link: the name it is linked to
	TargetDir uint32
	Data      []byte
}

// validName says whether name can stand in a directory.
func validName(name []byte) bool {
	if len(name) == emptyName || len(name) > nameMost || string(name) == "." || string(name) == ".." {
		return false
	}
	for _, c := range name {
		if c == 0 || c == '/' {
			return false
		}
	}
	return true
}

func validTarget(target []byte) bool {
	for _, c := range target {
		if c == 0 {
			return false
		}
	}
	return len(target) > 0 && len(target) <= targetMost
}

// Decode reads the record at the start of b and returns it with its size.
func Decode(b []byte) (r Record, size int, err error) {
	if len(b) == 0 {
		return r, 0, ErrRecord
	}
	r.Kind = Kind(b[0])
	switch r.Kind {
	case Data:
		return decodeData(b, r)
	case Hole:
		if len(b) < holeSize {
			return r, 0, ErrRecord
		}
		r.Size = binary.BigEndian.Uint64(b[1:])
		return r, holeSize, nil
	case Directory, File, Symlink, Link, Remove, Attributes, Other:
		return decodeNamed(b, r)
	}
	return r, 0, ErrRecord
}

func decodeData(b []byte, r Record) (Record, int, error) {
	if len(b) < dataHead {
		return r, 0, ErrRecord
	}
	length := uint64(binary.BigEndian.Uint32(b[1:]))
	if length == 0 || length > uint64(len(b)-dataHead) {
		return r, 0, ErrRecord
	}
	size := dataHead + int(length)
	r.Data = b[dataHead:size]
	return r, size, nil
}

func decodeNamed(b []byte, r Record) (Record, int, error) {
	if len(b) < headSize {
		return r, 0, ErrRecord
	}
	r.Flags, r.Mode = b[1], binary.BigEndian.Uint16(b[2:])
	r.Dir = binary.BigEndian.Uint32(b[4:])
	r.Mtime = int64(binary.BigEndian.Uint64(b[8:]))
	r.UID, r.GID = binary.BigEndian.Uint32(b[16:]), binary.BigEndian.Uint32(b[20:])
	name, size, ok := cut(b, headSize-2)
	if r.Name = name; !ok || !validName(name) {
		return r, 0, ErrRecord
	}
	switch r.Kind {
	case File:
		if len(b) < size+sizeSize {
			return r, 0, ErrRecord
		}
		r.Size = binary.BigEndian.Uint64(b[size:])
		size += sizeSize
	case Symlink:
		if r.Target, size, ok = cut(b, size); !ok || !validTarget(r.Target) {
			return r, 0, ErrRecord
		}
	case Link:
		if len(b) < size+4 {
			return r, 0, ErrRecord
		}
		r.TargetDir = binary.BigEndian.Uint32(b[size:])
		if r.Target, size, ok = cut(b, size+4); !ok || !validName(r.Target) {
			return r, 0, ErrRecord
		}
	}
	return r, size, nil
}

// cut takes the bytes whose length, a u16, stands at start; end is where they end.
func cut(b []byte, start int) (text []byte, end int, ok bool) {
	if len(b) < start+2 {
		return nil, 0, false
	}
	end = start + 2 + int(binary.BigEndian.Uint16(b[start:]))
	if len(b) < end {
		return nil, 0, false
	}
	return b[start+2 : end], end, true
}

// Append encodes a record.
func Append(b []byte, r Record) []byte {
	b = append(b, byte(r.Kind))
	switch r.Kind {
	case Data:
		b = binary.BigEndian.AppendUint32(b, uint32(len(r.Data)))
		return append(b, r.Data...)
	case Hole:
		return binary.BigEndian.AppendUint64(b, r.Size)
	}
	b = append(b, r.Flags)
	b = binary.BigEndian.AppendUint16(b, r.Mode)
	b = binary.BigEndian.AppendUint32(b, r.Dir)
	b = binary.BigEndian.AppendUint64(b, uint64(r.Mtime))
	b = binary.BigEndian.AppendUint32(b, r.UID)
	b = binary.BigEndian.AppendUint32(b, r.GID)
	b = appendText(b, r.Name)
	switch r.Kind {
	case File:
		b = binary.BigEndian.AppendUint64(b, r.Size)
	case Symlink:
		b = appendText(b, r.Target)
	case Link:
		b = binary.BigEndian.AppendUint32(b, r.TargetDir)
		b = appendText(b, r.Target)
	}
	return b
}

func appendText(b, text []byte) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(text))), text...)
}
