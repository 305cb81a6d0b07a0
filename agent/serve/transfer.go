package serve

import (
	"errors"

	"pyro.dev/agent/files"
	"pyro.dev/agent/wire"
)

const pathsMost = 4096

// transfers says whether an operation moves files.
func transfers(op string) bool {
	switch op {
	case "stage", "commit", "abort", "tree", "fetch", "digests":
		return true
	}
	return false
}

// push takes the records of a frame. The first failure ends the push; what was on its way is passed over.
func (s *session) push(payload []byte) error {
	if s.stage == nil {
		return nil
	}
	if !s.settled() {
		return wire.BadType // a walk has to end first
	}
	if err := s.stage.Take(payload); err != nil {
		s.abort()
		return s.send(wire.Error, asFailure(err))
	}
	return nil
}

// abort forgets the open push.
func (s *session) abort() {
	if s.stage != nil {
		s.stage.Abort()
		s.stage = nil
	}
}

// transfer answers the operations that move files. With a push open, no other operation may come.
func (s *session) transfer(r *request) error {
	var answer any
	var err error
	switch r.Op {
	case "stage":
		answer, err = s.begin(r)
	case "commit":
		answer, err = s.commit(r)
	case "abort":
		s.abort()
		answer = empty{}
	case "tree", "fetch":
		return s.walk(r)
	case "digests":
		answer, err = s.digests(r)
	default:
		s.abort()
		err = &failure{"busy", "a push is open on this session"}
	}
	if err != nil {
		return s.send(wire.Error, asFailure(err))
	}
	return s.send(wire.Response, answer)
}

func (s *session) begin(r *request) (any, error) {
	if !validID(r.Stage) || s.stage != nil {
		return nil, badRequest("stage is not 16 hexadecimal digits, or a push is open already")
	}
	stage, err := s.server.Files.Begin(r.Stage)
	if err != nil {
		return nil, err
	}
	s.stage = stage
	return stageAnswer{s.server.Files.Free()}, nil
}

// commit switches the open push in; without one, it tells how the push of that id ended.
func (s *session) commit(r *request) (any, error) {
	if s.stage == nil {
		return s.server.Files.Outcome(r.Stage)
	}
	defer s.abort()
	if r.Stage != s.stage.ID() {
		return nil, badRequest("another push is open on this session")
	}
	if err := s.stage.Check(r.Records, r.Bytes, r.Checksum); err != nil {
		return nil, err
	}
	return s.stage.Commit()
}

func (s *session) digests(r *request) (any, error) {
	if len(r.Paths) > pathsMost {
		return nil, badRequest("too many paths")
	}
	list, err := s.server.Files.Digests(r.Paths)
	return digestsAnswer{list}, err
}

// walk answers tree and fetch: a RESPONSE, records, and a RESPONSE at the end.
func (s *session) walk(r *request) error {
	walk, kind, err := s.server.Files.Open(string(r.Path))
	if err != nil {
		return s.send(wire.Error, asFailure(err))
	}
	answer := walkAnswer{"absent"}
	switch kind {
	case files.Directory:
		answer.Kind = "directory"
	case files.File:
		answer.Kind = "file"
	}
	if err := s.send(wire.Response, answer); err != nil {
		if walk != nil {
			walk.Close()
		}
		return err
	}
	if walk == nil {
		return s.send(wire.Response, walkedAnswer{})
	}
	walk.Contents = r.Op == "fetch"
	s.op = &operation{walk: walk, finished: make(chan struct{})}
	go s.streamWalk(s.op)
	return nil
}

// streamWalk writes what a walk finds until its end, or until the client is lost.
func (s *session) streamWalk(op *operation) {
	defer close(op.finished)
	defer op.walk.Close()
	frame := make([]byte, wire.HeaderSize, outputSize+wire.HeaderSize+offsetSize+wire.TrailerSize)
	room := cap(frame) - wire.TrailerSize
	var lost error
	op.walk.Flush = func(payload []byte) ([]byte, error) {
		if len(payload) > 0 {
			whole := wire.AppendHeader(frame[:0], s.id, wire.Entries)
			whole = wire.Finish(whole[:len(whole)+len(payload)], 0)
			_, lost = s.channel.Write(whole)
		}
		return frame[wire.HeaderSize:wire.HeaderSize:room], lost
	}
	err := op.walk.Run(frame[wire.HeaderSize:wire.HeaderSize:room])
	if lost != nil || errors.Is(err, files.ErrStopped) {
		return
	}
	op.ending.Store(true)
	if err != nil {
		s.send(wire.Error, asFailure(err))
		return
	}
	s.send(wire.Response, walkedAnswer{op.walk.Records, op.walk.Bytes, op.walk.Changed})
}
