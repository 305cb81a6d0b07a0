package gate

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"sync"
	"syscall"
	"time"

	"pyro.dev/agent/rtnl"
)

const (
	namespaceFile = "namespace" // where pasta finds the machine's namespace
	patience      = 10 * time.Second
	pause         = 2 * time.Millisecond
	lastWords     = time.Second
	acknowledge   = "acknowledge" // not a command of nft, so that it answers at once
	maxComplaint  = 500
)

// open makes the way out. What it starts is told of when it ends.
func open(p *Plan, handed Handover) (<-chan error, error) {
	inside := rtnl.From(handed.Netlink)
	if p.Uplink.Kind == KindPasta {
		return p.openPasta(inside, handed.Namespace)
	}
	return p.openVeth(inside, handed.Namespace)
}

// openVeth makes a pair of devices and the host's table. Nothing of the machine runs yet.
func (p *Plan) openVeth(inside *rtnl.Socket, namespace int) (<-chan error, error) {
	host, err := rtnl.Open()
	if err != nil {
		return nil, err
	}
	defer host.Close()
	if err := host.AddVeth(p.Uplink.Device, Device, namespace); err != nil {
		return nil, err
	}
	// The guest has no IPv6; the host's end shall not make itself an address.
	quiet := "/proc/sys/net/ipv6/conf/" + p.Uplink.Device + "/disable_ipv6"
	if err := os.WriteFile(quiet, []byte("1"), 0); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	gateway, err := rtnl.ParseAddress(p.Uplink.Gateway)
	if err != nil {
		return nil, err
	}
	chosen, err := p.hostEnd(host, gateway)
	if err != nil {
		return nil, err
	}
	ended, err := holdTable(p.NFT, chosen.HostRules)
	if err != nil {
		return nil, err
	}
	return ended, p.machineEnd(inside, chosen.Address, gateway)
}

// hostEnd sets up the host's device and finds an address that leads nowhere yet: making the route is the claim.
func (p *Plan) hostEnd(host *rtnl.Socket, gateway [4]byte) (*Candidate, error) {
	index, err := host.Index(p.Uplink.Device)
	if err != nil {
		return nil, err
	}
	if err := host.AddAddress(index, gateway, 32); err != nil {
		return nil, err
	}
	if err := host.Up(index, p.MTU); err != nil {
		return nil, err
	}
	for i := range p.Uplink.Candidates {
		candidate := &p.Uplink.Candidates[i]
		address, err := rtnl.ParseAddress(candidate.Address)
		if err != nil {
			return nil, err
		}
		if err := host.AddHostRoute(index, address); err == nil {
			return candidate, nil
		} else if !errors.Is(err, syscall.EEXIST) {
			return nil, err
		}
	}
	return nil, errors.New("no free address for the uplink")
}

func (p *Plan) machineEnd(inside *rtnl.Socket, own string, gateway [4]byte) error {
	address, err := rtnl.ParseAddress(own)
	if err != nil {
		return err
	}
	index, err := inside.Index(Device)
	if err != nil {
		return err
	}
	if err := inside.AddAddress(index, address, 32); err != nil {
		return err
	}
	if err := inside.Up(index, p.MTU); err != nil {
		return err
	}
	if err := inside.AddHostRoute(index, gateway); err != nil {
		return err
	}
	return inside.AddDefaultRoute(index, gateway)
}

// holdTable has an nft make the table and stay: the table is the process's own (`flags owner`), and the kernel removes
// it when the process ends, whatever ended it.
func holdTable(nft, rules string) (<-chan error, error) {
	commands, input, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer commands.Close()
	output, answers, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	ended, err := start([]string{nft, "-i"}, commands, answers)
	answers.Close()
	if err != nil {
		return nil, err
	}
	if _, err := fmt.Fprintf(input, "%s\n%s\n", rules, acknowledge); err != nil {
		return nil, fmt.Errorf("nft: %w", err)
	}
	if complaint := complaints(output); complaint != "" {
		return nil, fmt.Errorf("the host's table: %s", complaint)
	}
	keep(input)
	return ended, nil
}

// held are files that must stay open for as long as we live.
var held []*os.File

func keep(file *os.File) { held = append(held, file) }

// complaints is what nft says before it comes to our word.
func complaints(output *os.File) string {
	_ = output.SetReadDeadline(time.Now().Add(patience))
	var said strings.Builder
	lines := bufio.NewReader(io.LimitReader(output, maxMessage))
	for {
		line, err := lines.ReadString('\n')
		if strings.TrimSpace(line) == acknowledge {
			break
		}
		said.WriteString(line)
		if err != nil {
			return said.String() + err.Error()
		}
	}
	// Its last complaint is about our word.
	text := strings.TrimSpace(said.String())
	if first, last := strings.Index(text, "Error:"), strings.LastIndex(text, "Error:"); first != last {
		return text[:min(last, maxComplaint)]
	}
	return ""
}

// openPasta gives pasta a name for the namespace, in a mount namespace of ours, and waits for what it makes there.
func (p *Plan) openPasta(inside *rtnl.Socket, namespace int) (<-chan error, error) {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return nil, fmt.Errorf("make the mounts private: %w", err)
	}
	name := path.Join(p.Directory, namespaceFile)
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		return nil, err
	}
	source := fmt.Sprintf("/proc/self/fd/%d", namespace)
	if err := syscall.Mount(source, name, "", syscall.MS_BIND, ""); err != nil {
		return nil, fmt.Errorf("mount the namespace: %w", err)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	output, errors, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	ended, err := start(p.Uplink.Argv, null, errors)
	errors.Close()
	if err != nil {
		return nil, err
	}
	said := &words{over: make(chan struct{})}
	go said.listen(output)
	if err := awaitUplink(inside, ended); err != nil {
		return nil, fmt.Errorf("%w%s", err, said.first())
	}
	return ended, nil
}

// words are the first of what a program says on its stderr. All of it goes to ours.
type words struct {
	mu   sync.Mutex
	text []byte
	over chan struct{}
}

func (w *words) listen(output *os.File) {
	defer close(w.over)
	_, _ = io.Copy(io.MultiWriter(w, os.Stderr), output)
}

// Write implements io.Writer.
func (w *words) Write(piece []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.text = append(w.text, piece[:min(len(piece), maxComplaint-len(w.text))]...)
	return len(piece), nil
}

// first is what a program said that has ended or is about to, as the end of an error.
func (w *words) first() string {
	select {
	case <-w.over:
	case <-time.After(lastWords):
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if text := strings.TrimSpace(string(w.text)); text != "" {
		return ": " + text
	}
	return ""
}

func awaitUplink(inside *rtnl.Socket, ended <-chan error) error {
	late := time.After(patience)
	for {
		if ready, err := inside.HasDefaultRoute(); ready || err != nil {
			return err
		}
		select {
		case err := <-ended:
			return err
		case <-late:
			return errors.New("pasta did not make the uplink")
		case <-time.After(pause):
		}
	}
}

// start runs a program that ends with us. Its end is an error: they are there to stay.
func start(argv []string, input, output *os.File) (<-chan error, error) {
	process, err := os.StartProcess(argv[0], argv, &os.ProcAttr{
		Dir:   "/",
		Env:   []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "HOME=/nonexistent"},
		Files: []*os.File{input, output, output},
		Sys:   &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL},
	})
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", argv[0], err)
	}
	ended := make(chan error, 1)
	go func() {
		state, err := process.Wait()
		if err == nil {
			err = fmt.Errorf("%s ended: %s", argv[0], state)
		}
		ended <- err
	}()
	return ended, nil
}
