package job

import "sync/atomic"

const (
	// MaxBuffer is the default and the largest buffer of one stream.
	MaxBuffer = 1 << 20
	minBuffer = 16 << 10
	firstGrow = 4 << 10
	// liveBudget bounds the buffers of all running jobs together; beyond it each stream keeps what it has, and has to
	// do with at least minBuffer.
	liveBudget = 16 << 20
)

// ring holds the newest bytes of a stream that is addressed by offsets from its beginning. It grows on demand.
type ring struct {
	buf        []byte
	head       int // index of the byte at start
	start, end uint64
	limit      int
	live       *atomic.Int64 // bytes held by all rings
}

// write appends what fits and says how much. Bytes from offset keep on are not overwritten.
func (r *ring) write(p []byte, keep uint64) int {
	keep = max(keep, r.start)
	// What was given to a client is kept too, for one that attaches later, as long as there is room.
	if need := int(r.end-r.start) + len(p); need > len(r.buf) && len(r.buf) < r.limit {
		r.grow(need)
	}
	n := min(len(p), len(r.buf)-int(r.end-keep))
	if over := int(r.end-r.start) + n - len(r.buf); over > 0 {
		r.start += uint64(over)
		r.head = (r.head + over) % len(r.buf)
	}
	tail := 0
	if n > 0 {
		tail = (r.head + int(r.end-r.start)) % len(r.buf)
	}
	copied := copy(r.buf[tail:], p[:n])
	copy(r.buf, p[copied:n])
	r.end += uint64(n)
	return n
}

func (r *ring) grow(need int) {
	size := max(firstGrow, 2*len(r.buf))
	for size < need {
		size *= 2
	}
	size = min(size, r.limit)
	more := int64(size - len(r.buf))
	if r.live.Add(more) > liveBudget && size > minBuffer {
		r.live.Add(-more)
		if len(r.buf) >= minBuffer {
			return
		}
		size = min(minBuffer, r.limit)
		r.live.Add(int64(size - len(r.buf)))
	}
	r.move(size)
}

// move puts the bytes into a new buffer of the given size, which must hold them.
func (r *ring) move(size int) {
	grown := make([]byte, size)
	r.read(grown, r.start)
	r.buf, r.head = grown, 0
}

// read copies bytes from an offset that is not before start, and says how many.
func (r *ring) read(p []byte, offset uint64) int {
	n := min(len(p), int(r.end-offset))
	if n <= 0 {
		return 0
	}
	from := (r.head + int(offset-r.start)) % len(r.buf)
	copied := copy(p[:n], r.buf[from:])
	copy(p[copied:n], r.buf)
	return n
}

// settle ends writing: the buffer shrinks to what it holds and leaves the budget of running jobs.
func (r *ring) settle() {
	r.live.Add(-int64(len(r.buf)))
	if used := int(r.end - r.start); used < len(r.buf) {
		r.move(used)
	}
}

// drop forgets all bytes.
func (r *ring) drop() {
	r.buf, r.head, r.start = nil, 0, r.end
}
