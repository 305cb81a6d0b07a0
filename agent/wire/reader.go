package wire

import (
	"bytes"
	"io"
)

// firstBuffer holds a usual request; the buffer grows to one whole frame when a larger one comes.
const firstBuffer = 4096

// Reader takes HELLOs and frames from a byte stream, with a buffer of at most one largest frame.
type Reader struct {
	src  io.Reader
	buf  []byte
	r, w int // unread bytes are buf[r:w]
}

// NewReader reads from src. A read may return any number of bytes, but not 0 without an error for ever.
func NewReader(src io.Reader) *Reader { return &Reader{src: src, buf: make([]byte, firstBuffer)} }

// Reset forgets what was read and not yet used: it came from a client that is gone.
func (r *Reader) Reset() { r.r, r.w = 0, 0 }

// ReadHello drops bytes until a well-formed HELLO.
func (r *Reader) ReadHello() (Hello, error) {
	for {
		at := bytes.Index(r.buf[r.r:r.w], helloMagic)
		if at < 0 {
			// The magic may have begun in the last bytes.
			r.r = max(r.r, r.w-magicSize+1)
			if err := r.fill(magicSize); err != nil {
				return Hello{}, err
			}
			continue
		}
		r.r += at
		for r.w-r.r < HelloSize {
			if err := r.fill(HelloSize); err != nil {
				return Hello{}, err
			}
		}
		if h, ok := ParseHello(r.buf[r.r:r.w]); ok {
			r.r += HelloSize
			return h, nil
		}
		r.r++ // not a HELLO after all; one may start inside it
	}
}

// ReadFrame returns the next frame, valid until the next call. After a Fault the caller scans with ReadHello: a
// bad header is left unread, since it may itself be the HELLO of a new session; a frame with a bad trailer is dropped whole.
func (r *Reader) ReadFrame(session uint32) (Frame, error) {
	for {
		f, size, err := Decode(r.buf[r.r:r.w], session)
		if err == Truncated {
			if err := r.fill(size); err != nil {
				return Frame{}, err
			}
			continue
		}
		r.r += size
		return f, err
	}
}

// fill reads once more, having made room for need unread bytes in all.
func (r *Reader) fill(need int) error {
	if r.r == r.w {
		r.r, r.w = 0, 0
	}
	if need > len(r.buf) {
		// Straight to the largest frame: a second large frame is likely.
		grown := make([]byte, HeaderSize+MaxPayload+TrailerSize)
		r.w = copy(grown, r.buf[r.r:r.w])
		r.buf, r.r = grown, 0
	} else if r.r+need > len(r.buf) || r.w == len(r.buf) {
		r.w = copy(r.buf, r.buf[r.r:r.w])
		r.r = 0
	}
	n, err := r.src.Read(r.buf[r.w:])
	r.w += n
	if n > 0 {
		return nil
	}
	return err
}
