package launch

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"syscall"
)

const (
	maxPlan     = 1 << 20
	minLogLimit = 4096
	idLength    = 12
	firstFile   = 3 // the number the first of plan.Files has in the child
)

// plan is what one launcher is told, once, by the program that started it.
type plan struct {
	Argv           []string          `json:"argv"`
	Env            map[string]string `json:"env"`
	Files          []int             `json:"files"`
	UID            int64             `json:"uid"`
	GID            int64             `json:"gid"`
	Groups         []uint32          `json:"groups"`
	Owner          *ownerPlan        `json:"owner"`
	DeadlineUnixMS int64             `json:"deadline_unix_ms"`
	Directory      string            `json:"directory"`
	KeepDirectory  bool              `json:"keep_directory"` // also when the owner dies: it held the disk before
	Console        logPlan           `json:"console"`
	Log            logPlan           `json:"log"`
	StatusFD       int               `json:"status_fd"`
	Rlimits        map[string]int64  `json:"rlimits"`
	OOMScoreAdj    int               `json:"oom_score_adj"`
	Handover       bool              `json:"handover"`
	Namespaces     []string          `json:"namespaces"`
	Cgroups        []string          `json:"cgroups"`
	ExtraLogs      []logPlan         `json:"extra_logs"`
	Lend           []int             `json:"lend"` // of Files: what the child may read but opens for writing
	Network        json.RawMessage   `json:"network"`
}

type ownerPlan struct {
	PID        int    `json:"pid"`
	StartTicks uint64 `json:"start_ticks"`
}

// logPlan is a bounded log. Pipe, if there is one, is a FIFO that leads into it, which the child opens by name.
type logPlan struct {
	Path  string `json:"path"`
	Limit int64  `json:"limit"`
	Pipe  string `json:"pipe"`
}

// planKeys lists the keys of a plan; true: it must be there, so that a forgotten one cannot mean
// something weaker (no owner, uid 0, a disk that goes) by accident.
var planKeys = map[string]bool{
	"argv": true, "env": true, "files": true, "uid": true, "gid": true, "groups": true, "owner": true,
	"deadline_unix_ms": true, "directory": true, "keep_directory": true, "console": true, "log": true,
	"status_fd": true, "rlimits": true, "oom_score_adj": true, "handover": false, "namespaces": false, "cgroups": false,
	"extra_logs": false, "lend": false, "network": false,
}

// rlimitNumbers are the limits that a plan may set. They are set on the launcher, which keeps
// them; those that could stop the launcher itself (as, data, nproc, cpu) belong to a cgroup.
var rlimitNumbers = map[string]int{
	"core":    syscall.RLIMIT_CORE,
	"fsize":   syscall.RLIMIT_FSIZE,
	"memlock": rlimitMemlock,
	"nofile":  syscall.RLIMIT_NOFILE,
	"stack":   syscall.RLIMIT_STACK,
}

const (
	rlimitMemlock  = 8
	rlimitInfinity = -1
)

func readAll(source io.Reader) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(source, maxPlan+1))
	if err != nil {
		return nil, fmt.Errorf("read the plan: %w", err)
	}
	if len(text) > maxPlan {
		return nil, fmt.Errorf("the plan is longer than %d bytes", maxPlan)
	}
	return text, nil
}

// statusOf finds the status descriptor even in a plan that is refused, so that the refusal can be told.
func statusOf(text []byte) (int, bool) {
	var lenient struct {
		StatusFD int `json:"status_fd"`
	}
	err := json.Unmarshal(text, &lenient)
	return lenient.StatusFD, err == nil && lenient.StatusFD >= firstFile
}

func parsePlan(text []byte) (*plan, error) {
	if err := checkKeys(text); err != nil {
		return nil, err
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields() // inside owner, console and log
	p := &plan{}
	if err := decoder.Decode(p); err != nil {
		return nil, fmt.Errorf("plan: %w", err)
	}
	for _, check := range []func() error{p.checkProgram, p.checkIdentity, p.checkPaths, p.checkFiles, p.checkLimits,
		p.checkNamespaces, p.checkCgroups, p.checkNetwork} {
		if err := check(); err != nil {
			return nil, fmt.Errorf("plan: %w", err)
		}
	}
	return p, nil
}

// checkKeys is stricter than the decoder, which ignores case and takes null for "leave it zero".
func checkKeys(text []byte) error {
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(text, &raw); err != nil {
		return fmt.Errorf("plan: %w", err)
	}
	for key, value := range raw {
		if _, known := planKeys[key]; !known {
			return fmt.Errorf("plan: unknown key %.40q", key)
		}
		if key != "owner" && string(value) == "null" {
			return fmt.Errorf("plan: %s is null", key)
		}
	}
	for key, required := range planKeys {
		if _, present := raw[key]; required && !present {
			return fmt.Errorf("plan: %s is missing", key)
		}
	}
	return nil
}

func (p *plan) checkProgram() error {
	if len(p.Argv) == 0 || !path.IsAbs(p.Argv[0]) {
		return errors.New("argv must start with an absolute path")
	}
	for key, value := range p.Env {
		if key == "" || strings.ContainsAny(key, "=\x00") || strings.Contains(value, "\x00") {
			return fmt.Errorf("env has an impossible entry %.40q", key)
		}
	}
	return nil
}

func (p *plan) checkIdentity() error {
	const none, most = -1, 1<<32 - 2 // 2^32-1 means "unchanged" to the kernel
	if p.UID < none || p.UID > most || p.GID < none || p.GID > most {
		return errors.New("uid or gid out of range")
	}
	if (p.UID == none) != (p.GID == none) {
		return errors.New("uid and gid must be given together")
	}
	if p.UID == none && len(p.Groups) > 0 {
		return errors.New("groups need uid and gid")
	}
	if p.Owner != nil && (p.Owner.PID <= 0 || p.Owner.StartTicks == 0) {
		return errors.New("owner needs pid and start_ticks")
	}
	if p.DeadlineUnixMS < 0 {
		return errors.New("deadline_unix_ms is negative")
	}
	return nil
}

func (p *plan) checkPaths() error {
	if err := checkDirectoryName(p.Directory); err != nil {
		return err
	}
	seen := map[string]bool{}
	for _, log := range append([]logPlan{p.Console, p.Log}, p.ExtraLogs...) {
		if !isCleanPath(log.Path) || log.Pipe != "" && !isCleanPath(log.Pipe) {
			return fmt.Errorf("log path %.100q is not absolute and clean", log.Path)
		}
		if log.Limit < minLogLimit {
			return fmt.Errorf("log limit must be at least %d bytes", minLogLimit)
		}
		if seen[log.Path] {
			return errors.New("two logs are the same file")
		}
		seen[log.Path] = true
	}
	for _, log := range p.ExtraLogs {
		if log.Pipe == "" {
			return errors.New("an extra log needs a pipe")
		}
	}
	return nil
}

func isCleanPath(name string) bool { return path.IsAbs(name) && path.Clean(name) == name }

// checkDirectoryName lets through only what a machine directory is called: /.../<12 hex digits>.
func checkDirectoryName(directory string) error {
	name := path.Base(directory)
	hex := strings.Trim(name, "0123456789abcdef") == ""
	if !path.IsAbs(directory) || path.Clean(directory) != directory || len(name) != idLength || !hex {
		return fmt.Errorf("%.100q is not the absolute path of a machine directory", directory)
	}
	return nil
}

func (p *plan) checkFiles() error {
	if p.StatusFD < firstFile {
		return errors.New("status_fd must be 3 or more")
	}
	for i, fd := range p.Files {
		if fd < firstFile || slices.Contains(p.Files[:i], fd) {
			return errors.New("files must be 3 or more and each named once")
		}
	}
	if err := p.checkLend(); err != nil {
		return err
	}
	if slices.Contains(p.Files, p.StatusFD) {
		return errors.New("status_fd must not be given to the child") // it could forge events
	}
	return nil
}

func (p *plan) checkLimits() error {
	for name, value := range p.Rlimits {
		if _, known := rlimitNumbers[name]; !known {
			return fmt.Errorf("unknown rlimit %.40q", name)
		}
		if value < rlimitInfinity {
			return fmt.Errorf("rlimit %s is negative", name)
		}
	}
	if p.OOMScoreAdj < -1000 || p.OOMScoreAdj > 1000 {
		return errors.New("oom_score_adj is out of range")
	}
	return nil
}

// environment is sorted, so that two starts of one plan are the same.
func (p *plan) environment() []string {
	list := make([]string, 0, len(p.Env))
	for key, value := range p.Env {
		list = append(list, key+"="+value)
	}
	slices.Sort(list)
	return list
}
