package resolve

import (
	"encoding/json"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"
)

const (
	maxRefusedNames = 64
	maxLearnedNames = 1024
	maxLearnedPairs = 32 << 10 // names and addresses: so that the file is never longer than is read of it (1 MiB)
	writeEvery      = 25 * time.Millisecond
	addressRecord   = 16 // bytes of one that reply.add made
)

// Counts is what the file of a resolver holds. Names and RefusedNames are the guest's choice: host names in lower
// case, and only so many of them.
type Counts struct {
	Asked        uint64                  `json:"asked"`
	Refused      uint64                  `json:"refused"`
	Failed       uint64                  `json:"failed"`
	Limited      uint64                  `json:"limited"`
	Stripped     uint64                  `json:"stripped"`
	RefusedNames []string                `json:"refused_names"`
	Names        map[string][]netip.Addr `json:"names"`
}

// stats counts, and writes the counts soon after they changed.
type stats struct {
	mu      sync.Mutex
	counts  Counts
	pairs   int // of a name and one of its addresses, in counts
	path    string
	changed chan struct{}
	stop    chan struct{}
	done    chan struct{}
}

func newStats(path string) *stats {
	s := &stats{
		counts:  Counts{RefusedNames: []string{}, Names: map[string][]netip.Addr{}},
		path:    path,
		changed: make(chan struct{}, 1),
		stop:    make(chan struct{}),
		done:    make(chan struct{}),
	}
	go s.keep()
	return s
}

func (s *stats) close() {
	close(s.stop)
	<-s.done
}

func (s *stats) change(how func(*Counts)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	how(&s.counts)
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

func (s *stats) asked()    { s.change(func(c *Counts) { c.Asked++ }) }
func (s *stats) failed()   { s.change(func(c *Counts) { c.Failed++ }) }
func (s *stats) limited()  { s.change(func(c *Counts) { c.Limited++ }) }
func (s *stats) stripped() { s.change(func(c *Counts) { c.Stripped++ }) }

// refused counts a question, and keeps its name if it has one.
func (s *stats) refused(name string) {
	s.change(func(c *Counts) {
		c.Refused++
		if name != "" && len(c.RefusedNames) < maxRefusedNames && !slices.Contains(c.RefusedNames, name) {
			c.RefusedNames = append(c.RefusedNames, name)
		}
	})
}

// learned keeps the addresses that were given for a name; records are those that reply.add made.
func (s *stats) learned(name string, records []byte) {
	s.change(func(c *Counts) {
		known, old := c.Names[name]
		if name == "" || (!old && len(c.Names) >= maxLearnedNames) {
			return
		}
		for one := range slices.Chunk(records, addressRecord) {
			address := netip.AddrFrom4([4]byte(one[addressRecord-4:]))
			if s.pairs < maxLearnedPairs && len(known) < maxAddresses && !slices.Contains(known, address) {
				known = append(known, address)
				s.pairs++
			}
		}
		if len(known) > 0 {
			c.Names[name] = known
		}
	})
}

// keep writes the file, at first and whenever something changed, but not all the time.
func (s *stats) keep() {
	defer close(s.done)
	for {
		s.write()
		time.Sleep(writeEvery)
		select {
		case <-s.changed:
		case <-s.stop:
			s.write()
			return
		}
	}
}

func (s *stats) write() {
	if s.path == "" {
		return
	}
	s.mu.Lock()
	data, err := json.Marshal(s.counts)
	s.mu.Unlock()
	if err != nil {
		return
	}
	partial := s.path + ".partial"
	if os.WriteFile(partial, data, 0o644) != nil || os.Rename(partial, s.path) != nil {
		_ = os.Remove(partial) // a full disk: the next time
	}
}
