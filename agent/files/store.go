package files

import (
	"os"
	"path/filepath"
	"sync"
	"syscall"
)

const resultsKept = 64

// Store is the workspace of this machine, and the area beside it where pushes wait until they are switched in. One push
// is open at a time: what it sends was chosen by what it saw.
type Store struct {
	Root string // the workspace
	Area string // on the same file system, and not below Root

	mu     sync.Mutex
	swept  bool
	open   bool
	done   map[string]Result
	recent []string
	clean  sync.WaitGroup
}

// Result counts what a commit did.
type Result struct {
	Created    int64 `json:"created"`
	Replaced   int64 `json:"replaced"`
	Removed    int64 `json:"removed"`
	Attributes int64 `json:"attributes"`
}

// Begin opens a staging area. The id was chosen by the host.
func (s *Store) Begin(id string) (*Stage, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open {
		return nil, fail("busy", "another push to this machine is still open")
	}
	if _, known := s.done[id]; known {
		return nil, fail("bad_request", "this push was switched in already")
	}
	if !s.swept {
		os.RemoveAll(s.Area) // of an agent before us
		s.swept = true
	}
	stage, err := s.prepare(id)
	s.open = err == nil
	return stage, err
}

func (s *Store) prepare(id string) (*Stage, error) {
	place := filepath.Join(s.Area, id)
	stage := &Stage{store: s, id: id, place: place, root: noFD, tree: noFD, trash: noFD, dirFD: noFD, file: noFD, sum: sumStart}
	stage.dirs = []directory{{flags: Implied}}
	err := os.MkdirAll(place, 0o700)
	for _, dir := range []struct {
		name string
		fd   *int
	}{{"tree", &stage.tree}, {"trash", &stage.trash}} {
		if err != nil {
			break
		}
		if err = os.Mkdir(filepath.Join(place, dir.name), 0o700); err == nil {
			*dir.fd, err = openAt(noFD, filepath.Join(place, dir.name), openDir, 0)
		}
	}
	if err == nil {
		stage.root, err = openRoot(s.Root)
	}
	if err != nil {
		stage.close()
		os.RemoveAll(place)
		return nil, failed("preparing", s.Area, err)
	}
	return stage, nil
}

// Free is how many bytes the workspace can still take.
func (s *Store) Free() uint64 {
	var fs syscall.Statfs_t
	if syscall.Statfs(filepath.Dir(s.Root), &fs) != nil {
		return 0
	}
	return fs.Bavail * uint64(fs.Bsize)
}

// Outcome tells of a commit whose answer may have been lost.
func (s *Store) Outcome(id string) (Result, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if result, known := s.done[id]; known {
		return result, nil
	}
	if s.open {
		return Result{}, fail("busy", "a push is still open")
	}
	return Result{}, fail("no_such_stage", "nothing is staged under this id")
}

// remember keeps the outcome of a commit, of the last ones.
func (s *Store) remember(id string, result Result) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.done == nil {
		s.done = make(map[string]Result, resultsKept)
	}
	if len(s.recent) == resultsKept {
		delete(s.done, s.recent[0])
		s.recent = s.recent[1:]
	}
	s.done[id] = result
	s.recent = append(s.recent, id)
}

// release ends a push. Its files go in the background: nobody needs to wait for that.
func (s *Store) release(place string) {
	s.clean.Add(1)
	go func() {
		defer s.clean.Done()
		os.RemoveAll(place)
	}()
	s.mu.Lock()
	s.open = false
	s.mu.Unlock()
}

// Settle waits until nothing of ended pushes is left.
func (s *Store) Settle() { s.clean.Wait() }
