package job

import (
	"syscall"
	"time"
)

// What a shell and env(1) answer for a program that cannot be started, and timeout(1) for one that ran too long.
const (
	codeTimeout       = 124
	codeNotExecutable = 126
	codeNotFound      = 127
	codeSignal        = 128
)

// startFailure is why the program itself could not be started; code 0 means it was.
type startFailure struct {
	code   int
	text   string
	causes []string
}

// finish makes the report. It runs once, when the leader is gone and its output is in.
func (j *Job) finish() {
	j.mu.Lock()
	exit := Exit{
		Error:         j.failure.text,
		TimedOut:      j.timedOut,
		DurationMs:    time.Since(j.began).Milliseconds(),
		StdoutBytes:   j.streams[Stdout].end,
		StderrBytes:   j.streams[Stderr].end,
		StdoutDropped: j.streams[Stdout].dropped,
		StderrDropped: j.streams[Stderr].dropped,
	}
	status, failure := j.status, j.failure
	j.mu.Unlock()

	switch {
	case failure.code != 0:
		exit.Code = failure.code
	case status.Signaled():
		exit.Signal = int(status.Signal())
		exit.Code = codeSignal + exit.Signal
	default:
		exit.Code = status.ExitStatus()
	}
	if exit.TimedOut {
		exit.Code = codeTimeout
	}
	exit.Causes = append(j.causes(&exit), failure.causes...)

	j.mu.Lock()
	if j.timer != nil {
		j.timer.Stop()
	}
	j.closeInput()
	for i := range j.streams {
		j.streams[i].settle()
		j.kept += len(j.streams[i].buf)
	}
	j.mu.Unlock()

	// Who hears of the end may at once forget the job, or start another in its place.
	j.table.file(j)
	j.mu.Lock()
	j.exit = &exit
	j.changed.Broadcast()
	j.mu.Unlock()
	j.table.clean(j)
}

// causes names what explains the end. An end with 0 needs no explanation.
func (j *Job) causes(e *Exit) []string {
	causes := []string{}
	if e.TimedOut {
		causes = append(causes, "timeout")
	}
	if e.Code == 0 || e.Error != "" {
		return causes
	}
	if j.group != nil {
		if j.group.Event("memory.events", "oom_kill") > 0 {
			causes = append(causes, "oom")
		}
		if j.group.Event("pids.events", "max") > 0 || j.table.limitHits() > j.limitHits {
			causes = append(causes, "process_limit")
		}
	}
	if diskFull("/") {
		causes = append(causes, "disk_full")
	}
	if e.Signal != 0 && !e.TimedOut {
		causes = append(causes, "signal")
	}
	return causes
}

// diskFull says whether less than 1 MiB or less than a thousandth of the file system is free.
func diskFull(path string) bool {
	var fs syscall.Statfs_t
	if syscall.Statfs(path, &fs) != nil || fs.Blocks == 0 {
		return false
	}
	return fs.Bavail*uint64(fs.Bsize) < 1<<20 || fs.Bavail < fs.Blocks/1000
}
