package serve

import (
	"pyro.dev/agent/identity"
	"pyro.dev/agent/job"
)

// request is the union of all operations' fields. Fields of later generations are passed over.
type request struct {
	Op string `json:"op"`

	identity.Config

	Job          string    `json:"job"`
	Argv         [][]byte  `json:"argv"`
	Env          [][]byte  `json:"env"`
	Cwd          []byte    `json:"cwd"`
	User         string    `json:"user"`
	TTY          *terminal `json:"tty"`
	Stdin        bool      `json:"stdin"`
	TimeoutMs    int64     `json:"timeout_ms"`
	GraceMs      int64     `json:"grace_ms"`
	BufferBytes  int64     `json:"buffer_bytes"`
	Detach       bool      `json:"detach"`
	StdoutOffset uint64    `json:"stdout_offset"`
	StderrOffset uint64    `json:"stderr_offset"`
	Signal       int       `json:"signal"`
	Scope        string    `json:"scope"`

	Stage    string   `json:"stage"`
	Path     []byte   `json:"path"`
	Paths    [][]byte `json:"paths"`
	Records  uint64   `json:"records"`
	Bytes    uint64   `json:"bytes"`
	Checksum uint32   `json:"checksum"`

	Window int `json:"window"`
}

type terminal struct {
	Rows    uint16 `json:"rows"`
	Columns uint16 `json:"cols"`
	Term    string `json:"term"`
}

type infoAnswer struct {
	AgentVersion string           `json:"agent_version"`
	Generation   int              `json:"generation"`
	Kernel       string           `json:"kernel"`
	BootID       string           `json:"boot_id"`
	UptimeMs     int64            `json:"uptime_ms"`
	BootMs       map[string]int64 `json:"boot_ms"`
	Configured   bool             `json:"configured"`
}

type configureAnswer struct {
	Applied []string `json:"applied"`
}

type startAnswer struct {
	Job         string `json:"job"`
	Pid         int    `json:"pid"`
	Started     bool   `json:"started"`
	StdinCredit int    `json:"stdin_credit"`
	StdinOffset uint64 `json:"stdin_offset"`
}

type signalAnswer struct {
	Delivered bool `json:"delivered"`
}

type jobsAnswer struct {
	Jobs []jobEntry `json:"jobs"`
}

type jobEntry struct {
	Job     string    `json:"job"`
	Pid     int       `json:"pid"`
	Running bool      `json:"running"`
	Exit    *job.Exit `json:"exit"`
}

type usageAnswer struct {
	Memory    memoryUsage `json:"memory"`
	Disk      diskUsage   `json:"disk"`
	Processes int64       `json:"processes"`
	OOMKills  int64       `json:"oom_kills"`
}

type memoryUsage struct {
	TotalKiB     int64 `json:"total_kib"`
	AvailableKiB int64 `json:"available_kib"`
	FreeKiB      int64 `json:"free_kib"`
}

type diskUsage struct {
	TotalBytes uint64 `json:"total_bytes"`
	FreeBytes  uint64 `json:"free_bytes"`
}

type stageAnswer struct {
	FreeBytes uint64 `json:"free_bytes"`
}

// walkAnswer comes before the records; kind is `directory`, `file`, or `absent`.
type walkAnswer struct {
	Kind string `json:"kind"`
}

// walkedAnswer comes after them.
type walkedAnswer struct {
	Records int64 `json:"records"`
	Bytes   int64 `json:"bytes"`
	Changed int64 `json:"changed"`
}

type digestsAnswer struct {
	Digests [][]byte `json:"digests"`
}

type empty struct{}

// failure is an ERROR frame.
type failure struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

func (f *failure) Error() string { return f.Code + ": " + f.Message }

func badRequest(message string) error { return &failure{"bad_request", message} }
