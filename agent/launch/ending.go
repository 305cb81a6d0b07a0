package launch

import (
	"encoding/json"
	"syscall"
	"time"
)

const (
	endName    = "end.json"
	endPartial = ".end.json.partial"
)

// ending is what the machine's directory tells of its end, for those who were not there: the status pipe has long
// been closed when a machine outlives its starter.
type ending struct {
	ExitCode int    `json:"exit_code"` // -1 when a signal ended it
	Signal   int    `json:"signal"`    // 0 when it exited by itself
	Reason   reason `json:"reason"`
	UnixMS   int64  `json:"unix_ms"`
}

// leave writes the ending. It is told on a best effort: a full disk must not keep the launcher alive.
func (s *supervisor) leave(code, signal int, why reason) {
	machine, err := openMachineDir(s.plan.Directory)
	if err != nil {
		return // gone with its owner
	}
	defer machine.close()
	text, err := json.Marshal(ending{code, signal, why, time.Now().UnixMilli()})
	if err != nil {
		return
	}
	_ = unlinkAt(machine.fd, endPartial, 0)
	fd, err := openAt(machine.fd, endPartial, syscall.O_WRONLY|syscall.O_CREAT|syscall.O_EXCL)
	if err != nil {
		return
	}
	_, err = syscall.Write(fd, append(text, '\n'))
	syscall.Close(fd)
	if err == nil {
		_ = syscall.Renameat(machine.fd, endPartial, machine.fd, endName)
	}
}

// forgetEnding removes what an earlier life of the machine left.
func (s *supervisor) forgetEnding() {
	if machine, err := openMachineDir(s.plan.Directory); err == nil {
		defer machine.close()
		_ = unlinkAt(machine.fd, endName, 0)
		_ = unlinkAt(machine.fd, deadlineName, 0)
		_ = unlinkAt(machine.fd, releaseName, 0)
	}
}
