package resolve

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"strings"
)

// The numbers of RFC 1035, 6891 and their registry.
const (
	headerSize = 12

	flagResponse  = 1 << 15
	flagTruncated = 1 << 9
	flagRecurse   = 1 << 8
	flagAvailable = 1 << 7
	opcodeMask    = 0xf << 11
	rcodeMask     = 0xf

	noError     = 0
	formatError = 1
	failed      = 2
	noName      = 3
	notKnown    = 4
	refused     = 5

	typeA    = 1
	typeAAAA = 28
	typeOPT  = 41
	classIN  = 1

	leastSize = 512
	mostSize  = 1232 // of an answer by UDP: no fragments
)

var errFormat = errors.New("not a DNS message")

// question is what is asked. raw are its bytes on the wire; name is text in lower case, without the last dot, and
// empty when it has other characters than host names have.
type question struct {
	raw   []byte
	name  string
	kind  uint16
	class uint16
}

// query is one message from a guest. size is the longest answer it takes by UDP.
type query struct {
	id       uint16
	recurse  bool
	extended bool // it has an OPT record, and so gets one
	size     int
	question question
}

// parseQuery reads a query. The code is what is wrong with it; an error: it gets no answer at all.
func parseQuery(b []byte) (query, int, error) {
	q := query{size: leastSize}
	if len(b) < headerSize {
		return q, 0, errFormat
	}
	flags := binary.BigEndian.Uint16(b[2:])
	if flags&flagResponse != 0 {
		return q, 0, errFormat
	}
	q.id, q.recurse = binary.BigEndian.Uint16(b), flags&flagRecurse != 0
	if flags&opcodeMask != 0 {
		return q, notKnown, nil
	}
	questions, answers, authorities, additional := counts(b)
	if questions != 1 || answers != 0 || authorities != 0 || additional > 1 {
		return q, formatError, nil
	}
	asked, rest, err := readQuestion(b, headerSize)
	if err != nil {
		return q, formatError, nil
	}
	q.question = asked
	if additional == 1 {
		found, end, err := readRecord(b, rest)
		if err != nil || found.kind != typeOPT || end > len(b) {
			return q, formatError, nil
		}
		q.extended, q.size = true, min(max(int(found.class), leastSize), mostSize)
	}
	return q, noError, nil
}

func counts(b []byte) (questions, answers, authorities, additional int) {
	n := func(at int) int { return int(binary.BigEndian.Uint16(b[at:])) }
	return n(4), n(6), n(8), n(10)
}

// readQuestion reads the question at that offset, and gives the offset after it. Its name must not be compressed.
func readQuestion(b []byte, at int) (question, int, error) {
	var labels []string
	plain, i := true, at
	for {
		if i >= len(b) || b[i] > 63 {
			return question{}, 0, errFormat
		}
		length := int(b[i])
		i++
		if length == 0 {
			break
		}
		if i+length > len(b) || i+length-at > 254 {
			return question{}, 0, errFormat
		}
		label := strings.ToLower(string(b[i : i+length]))
		plain = plain && hostLabel(label)
		labels = append(labels, label)
		i += length
	}
	if i+4 > len(b) {
		return question{}, 0, errFormat
	}
	q := question{raw: b[at : i+4], kind: binary.BigEndian.Uint16(b[i:]), class: binary.BigEndian.Uint16(b[i+2:])}
	if plain {
		q.name = strings.Join(labels, ".")
	}
	return q, i + 4, nil
}

func hostLabel(label string) bool {
	for _, c := range []byte(label) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return false
		}
	}
	return true
}

// record is a resource record; its data are bytes of the message.
type record struct {
	kind, class uint16
	ttl         uint32
	data        []byte
}

// readRecord reads the record at that offset, and gives the offset after it. Its name is skipped, not followed.
func readRecord(b []byte, at int) (record, int, error) {
	i := at
	for {
		if i >= len(b) {
			return record{}, 0, errFormat
		}
		length := int(b[i])
		if length >= 0xc0 { // the rest of the name is elsewhere
			i += 2
			break
		}
		if length > 63 {
			return record{}, 0, errFormat
		}
		i += 1 + length
		if length == 0 {
			break
		}
	}
	if i+10 > len(b) {
		return record{}, 0, errFormat
	}
	size := int(binary.BigEndian.Uint16(b[i+8:]))
	end := i + 10 + size
	if end > len(b) {
		return record{}, 0, errFormat
	}
	return record{
		kind:  binary.BigEndian.Uint16(b[i:]),
		class: binary.BigEndian.Uint16(b[i+2:]),
		ttl:   binary.BigEndian.Uint32(b[i+4:]),
		data:  b[i+10 : end],
	}, end, nil
}

// reply is an answer in the making: count records, as they go on the wire.
type reply struct {
	code    int
	count   int
	records []byte
}

// add appends an address of the name that was asked for.
func (r *reply) add(address netip.Addr, ttl uint32) {
	r.records = append(r.records, 0xc0, headerSize)
	r.records = binary.BigEndian.AppendUint16(r.records, typeA)
	r.records = binary.BigEndian.AppendUint16(r.records, classIN)
	r.records = binary.BigEndian.AppendUint32(r.records, ttl)
	r.records = binary.BigEndian.AppendUint16(r.records, 4)
	octets := address.As4()
	r.records = append(r.records, octets[:]...)
	r.count++
}

// encode makes the message. One that is longer than limit is cut to nothing, and says so.
func (r *reply) encode(q query, limit int) []byte {
	flags := uint16(flagResponse | flagAvailable | r.code)
	if q.recurse {
		flags |= flagRecurse
	}
	count, records := r.count, r.records
	extra := 0
	if q.extended {
		extra = 1
	}
	if headerSize+len(q.question.raw)+len(records)+11*extra > limit {
		flags, count, records = flags|flagTruncated, 0, nil
	}
	questions := min(len(q.question.raw), 1)
	b := make([]byte, 0, headerSize+len(q.question.raw)+len(records)+11)
	for _, n := range []uint16{q.id, flags, uint16(questions), uint16(count), 0, uint16(extra)} {
		b = binary.BigEndian.AppendUint16(b, n)
	}
	b = append(append(b, q.question.raw...), records...)
	if q.extended {
		b = appendOPT(b)
	}
	return b
}

func appendOPT(b []byte) []byte {
	b = binary.BigEndian.AppendUint16(append(b, 0), typeOPT)
	b = binary.BigEndian.AppendUint16(b, mostSize)
	return append(b, 0, 0, 0, 0, 0, 0)
}
