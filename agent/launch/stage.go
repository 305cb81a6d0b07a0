package launch

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"pyro.dev/agent/gate"
	"pyro.dev/agent/netns"
)

const (
	ownProgram    = "/proc/self/exe"
	stagePatience = 30 * time.Second
	maxReport     = 4 << 10
)

func (p *plan) networked() bool { return p.Network != nil }

func (p *plan) checkNetwork() error {
	if !p.networked() {
		return nil
	}
	network, err := netns.Parse(p.Network)
	if err != nil {
		return err
	}
	if !slices.Contains(p.Namespaces, "net") {
		return errors.New("a network needs a network namespace")
	}
	if p.UID >= 0 && !network.Descriptor {
		return errors.New("a uid with a network needs a VMM that gets a descriptor")
	}
	if network.Uplink.Kind == gate.KindNone && network.GateUID >= 0 {
		return errors.New("there is no gate to be gate_uid")
	}
	return nil
}

// stage is the step between us and the VMM that makes the machine's network: netns.Main.
type stage struct {
	told, report [2]*os.File // read, write
}

func newStage(p *plan) (*stage, error) {
	text, err := json.Marshal(netns.Stage{
		Network: p.Network, Argv: p.Argv, UID: p.UID, GID: p.GID, Groups: numbers(p.Groups),
	})
	if err != nil {
		return nil, err
	}
	s := &stage{}
	if s.told[0], s.told[1], err = os.Pipe(); err != nil {
		return nil, err
	}
	if s.report[0], s.report[1], err = os.Pipe(); err != nil {
		return nil, err
	}
	told := s.told[1]
	go func() {
		_, _ = told.Write(text) // one that ends without reading it says why elsewhere
		told.Close()
	}()
	return s, nil
}

// argv is the stage's command line when its descriptors come after so many others.
func (s *stage) argv(files int) []string {
	return []string{"pyro-agent", "netns", strconv.Itoa(files)}
}

func (s *stage) descriptors() []uintptr { return []uintptr{s.told[0].Fd(), s.report[1].Fd()} }

// await returns when the stage has become what the plan asked for; an error is what it said before it ended.
func (s *stage) await() error {
	s.told[0].Close()
	s.report[1].Close()
	if err := s.report[0].SetReadDeadline(time.Now().Add(stagePatience)); err != nil {
		return err
	}
	said, err := io.ReadAll(io.LimitReader(s.report[0], maxReport))
	if err != nil {
		return networkError{"its making did not end: " + err.Error()}
	}
	if len(said) > 0 {
		return networkError{strings.TrimSpace(string(said))}
	}
	return nil
}

func (s *stage) close() {
	for _, file := range []*os.File{s.told[0], s.report[0], s.report[1]} {
		file.Close()
	}
}

func numbers(groups []uint32) []int {
	list := make([]int, 0, len(groups))
	for _, group := range groups {
		list = append(list, int(group))
	}
	return list
}
