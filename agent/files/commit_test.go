package files

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// bed is a workspace, and a push to it that is being made.
type bed struct {
	t     *testing.T
	store *Store
	stage *Stage
	sum   uint32
	count uint64
	bytes uint64
}

const stageID = "0123456789abcdef"

func newBed(t *testing.T) *bed {
	t.Helper()
	base := t.TempDir()
	b := &bed{t: t, sum: sumStart, store: &Store{Root: filepath.Join(base, "workspace"), Area: filepath.Join(base, "area")}}
	t.Cleanup(func() {
		if b.stage != nil {
			b.stage.Abort()
		}
		b.store.Settle()
		if left, _ := os.ReadDir(b.store.Area); len(left) > 0 {
			t.Error("left in the staging area:", left)
		}
	})
	stage, err := b.store.Begin(stageID)
	if err != nil {
		t.Fatal(err)
	}
	b.stage = stage
	return b
}

// at is a path in the workspace.
func (b *bed) at(path string) string { return filepath.Join(b.store.Root, path) }

// make fills the workspace: a name with a slash at its end is a directory, "a->b" a symbolic link.
func (b *bed) make(entries ...string) {
	b.t.Helper()
	for _, entry := range entries {
		name, content, _ := strings.Cut(entry, "=")
		name, target, isLink := strings.Cut(name, "->")
		var err error
		switch {
		case isLink:
			err = os.Symlink(target, b.at(name))
		case strings.HasSuffix(name, "/"):
			err = os.MkdirAll(b.at(name), 0o755)
		default:
			err = os.WriteFile(b.at(name), []byte(content), 0o644)
		}
		if err != nil {
			b.t.Fatal(err)
		}
	}
}

func (b *bed) take(records ...Record) error {
	var frame []byte
	for _, r := range records {
		if r.Mode == 0 {
			r.Mode = 0o644
			if r.Kind == Directory {
				r.Mode = 0o755
			}
		}
		if r.Kind != Data && r.Kind != Hole {
			b.count++
		}
		if r.Kind == File {
			b.bytes += r.Size
		}
		frame = Append(frame, r)
	}
	b.sum = addSum(b.sum, frame)
	return b.stage.Take(frame)
}

func (b *bed) must(records ...Record) {
	b.t.Helper()
	if err := b.take(records...); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bed) commit() (Result, error) {
	if err := b.stage.Check(b.count, b.bytes, b.sum); err != nil {
		return Result{}, err
	}
	return b.stage.Commit()
}

func dir(parent uint32, name string) Record {
	return Record{Kind: Directory, Dir: parent, Name: []byte(name)}
}

func file(parent uint32, name, content string) []Record {
	head := Record{Kind: File, Dir: parent, Name: []byte(name), Size: uint64(len(content)), Mtime: 7e9}
	if content == "" {
		return []Record{head}
	}
	return []Record{head, {Kind: Data, Data: []byte(content)}}
}

// state is all that a rollback must bring back.
func (b *bed) state() string {
	b.t.Helper()
	var all strings.Builder
	err := filepath.WalkDir(b.store.Root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st syscall.Stat_t
		if err := syscall.Lstat(path, &st); err != nil {
			return err
		}
		content, _ := os.Readlink(path)
		if st.Mode&syscall.S_IFMT == syscall.S_IFREG {
			data, _ := os.ReadFile(path)
			content = string(data)
		}
		fmt.Fprintf(&all, "%s %o %d %d %q\n", path, st.Mode, st.Ino, st.Mtim.Nano(), content)
		return nil
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return all.String()
}

func (b *bed) content(path, want string) {
	b.t.Helper()
	if data, err := os.ReadFile(b.at(path)); err != nil || string(data) != want {
		b.t.Errorf("%s: %q, %v; want %q", path, data, err, want)
	}
}

func code(err error) string {
	var known *Failure
	if errors.As(err, &known) {
		return known.Code
	}
	return fmt.Sprint(err)
}

func TestCommit(t *testing.T) {
	b := newBed(t)
	b.make("old/", "old/kept=1", "old/changed=2", "old/gone=3", "tree/", "tree/x=4", "link->/etc/passwd", "keep=5")
	b.must(dir(0, "old"), dir(0, "new"), dir(2, "deep"))
	b.must(Record{Kind: Remove, Dir: 1, Name: []byte("gone")}, Record{Kind: Remove, Name: []byte("tree")})
	b.must(Record{Kind: Remove, Name: []byte("never was")})
	b.must(Record{Kind: Attributes, Name: []byte("keep"), Mode: 0o600, Mtime: 9e9})
	b.must(file(1, "changed", "two")...)
	b.must(file(3, "a", "")...)
	b.must(file(0, "link", "plain")...)
	b.must(Record{Kind: File, Dir: 2, Name: []byte("sparse"), Size: 1 << 20}, Record{Kind: Hole, Size: 1 << 20})
	b.must(Record{Kind: Symlink, Dir: 2, Name: []byte("s"), Target: []byte("../..")})
	b.must(Record{Kind: Link, Dir: 0, Name: []byte("again"), TargetDir: 1, Target: []byte("changed")})
	result, err := b.commit()
	if err != nil {
		t.Fatal(err)
	}
	if result != (Result{Created: 2, Replaced: 2, Removed: 2, Attributes: 1}) {
		t.Error(result)
	}
	b.content("old/kept", "1")
	b.content("old/changed", "two")
	b.content("again", "two")
	b.content("link", "plain")
	for _, gone := range []string{"old/gone", "tree"} {
		if _, err := os.Lstat(b.at(gone)); !os.IsNotExist(err) {
			t.Error(gone, err)
		}
	}
	if info, err := os.Stat(b.at("keep")); err != nil || info.Mode() != 0o600 || !info.ModTime().Equal(time.Unix(9, 0)) {
		t.Error(info, err)
	}
	if again, err := b.store.Outcome(stageID); err != nil || again != result {
		t.Error(again, err)
	}
}

func TestAFailedCommitIsUndone(t *testing.T) {
	b := newBed(t)
	b.make("a/", "a/x=old", "a/gone/", "a/gone/y=deep", "a/dressed=d", "z/", "z/inner=1", "a/link->x")
	os.Chmod(b.at("a"), 0o750)
	before := b.state()
	// Whichever of the two conflicts comes first, some of the rest was done by then.
	for round := range 2 {
		if round > 0 {
			b.stage.Abort()
			b.sum, b.count, b.bytes = sumStart, 0, 0
			b.stage, _ = b.store.Begin(fmt.Sprintf("%016x", round))
		}
		b.must(dir(0, "a"), dir(0, "n"), dir(1, "x")) // "a/x" is a file
		b.must(Record{Kind: Remove, Dir: 1, Name: []byte("gone")})
		b.must(Record{Kind: Attributes, Dir: 1, Name: []byte("dressed"), Mode: 0o600, Mtime: 1})
		b.must(file(1, "link", "file")...)
		b.must(file(1, "added", "new")...)
		b.must(file(2, "f", "new")...)
		b.must(file(0, "z", "a file on a directory")...)
		if _, err := b.commit(); code(err) != "conflict" {
			t.Fatal(err)
		}
		if after := b.state(); after != before {
			t.Fatalf("before:\n%s\nafter:\n%s", before, after)
		}
	}
}

func TestNothingIsReachedThroughASymbolicLink(t *testing.T) {
	b := newBed(t)
	outside := t.TempDir()
	b.make("out->"+outside, "d/")
	os.WriteFile(filepath.Join(outside, "f"), []byte("safe"), 0o644)
	b.must(Record{Kind: Directory, Name: []byte("out"), Flags: Implied})
	b.must(file(1, "f", "evil")...)
	if _, err := b.commit(); code(err) != "conflict" {
		t.Error(err)
	}
	if _, _, err := b.store.Open("out/f"); code(err) != "bad_path" {
		t.Error(err)
	}
	if list, err := b.store.Digests([][]byte{[]byte("out/f"), []byte("../x"), []byte("d")}); err != nil || list[0] != nil || list[1] != nil || list[2] != nil {
		t.Error(list, err)
	}
	if data, _ := os.ReadFile(filepath.Join(outside, "f")); string(data) != "safe" {
		t.Errorf("%s", data)
	}
}

func TestBadRecordsAreRefused(t *testing.T) {
	one := func(r Record) []Record { return []Record{r} }
	for name, records := range map[string][]Record{
		"unknown directory":       file(3, "x", "y"),
		"twice":                   append(file(0, "x", ""), file(0, "x", "")...),
		"directory on a link":     {{Kind: Symlink, Name: []byte("l"), Target: []byte("/etc")}, dir(0, "l")},
		"file below a file":       append(file(0, "x", ""), file(1, "y", "")...),
		"data without a file":     one(Record{Kind: Data, Data: []byte("x")}),
		"too much data":           append(file(0, "x", "abc"), Record{Kind: Data, Data: []byte("d")}),
		"record in a file":        {{Kind: File, Name: []byte("x"), Size: 3}, dir(0, "d")},
		"hole without a file":     one(Record{Kind: Hole, Size: 1}),
		"hole too large":          {{Kind: File, Name: []byte("x"), Size: 3}, {Kind: Hole, Size: 4}},
		"link to a symbolic link": {{Kind: Symlink, Name: []byte("l"), Target: []byte("/etc/passwd")}, {Kind: Link, Name: []byte("h"), Target: []byte("l")}},
		"link to nothing":         one(Record{Kind: Link, Name: []byte("h"), Target: []byte("l")}),
		"other":                   one(Record{Kind: Other, Name: []byte("fifo")}),
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t)
			if err := b.take(records...); err == nil {
				t.Error("taken")
			}
			if state := b.state(); strings.Count(state, "\n") != 1 {
				t.Error(state)
			}
		})
	}
}

func TestCheckFindsWhatIsMissing(t *testing.T) {
	b := newBed(t)
	b.must(file(0, "x", "abc")...)
	for _, wrong := range [][3]uint64{{2, 3, 0}, {1, 4, 0}, {1, 3, 1}} {
		if err := b.stage.Check(wrong[0], wrong[1], b.sum^uint32(wrong[2])); code(err) != "bad_request" {
			t.Error(wrong, err)
		}
	}
	if err := b.stage.Check(1, 3, b.sum); err != nil {
		t.Error(err)
	}
}

func TestOnePushAtATime(t *testing.T) {
	b := newBed(t)
	if _, err := b.store.Begin("1111111111111111"); code(err) != "busy" {
		t.Error(err)
	}
	if _, err := b.store.Outcome(stageID); code(err) != "busy" {
		t.Error(err)
	}
	b.stage.Abort()
	b.stage = nil
	if _, err := b.store.Outcome(stageID); code(err) != "no_such_stage" {
		t.Error(err)
	}
}

func TestWalk(t *testing.T) {
	b := newBed(t)
	b.make("a/", "a/f=hello", "a/b/", "l->a")
	os.Link(b.at("a/f"), b.at("a/b/g"))
	syscall.Mkfifo(b.at("fifo"), 0o600)
	big := strings.Repeat("x", 100_000)
	b.make("big=" + big)
	for _, contents := range []bool{false, true} {
		walk, kind, err := b.store.Open("")
		if err != nil || kind != Directory {
			t.Fatal(kind, err)
		}
		var all []byte
		walk.Contents = contents
		walk.Flush = func(frame []byte) ([]byte, error) { all = append(all, frame...); return frame[:0], nil }
		if err := walk.Run(make([]byte, 0, RoomLeast+10)); err != nil {
			t.Fatal(err)
		}
		walk.Close()
		kinds, data := map[Kind]int{}, 0
		for len(all) > 0 {
			r, size, err := Decode(all)
			if err != nil {
				t.Fatal(err)
			}
			kinds[r.Kind]++
			data += len(r.Data)
			all = all[size:]
		}
		want := 0
		if contents {
			want = len(big) + len("hello")
		}
		if kinds[Directory] != 2 || kinds[File] != 2 || kinds[Link] != 1 || kinds[Symlink] != 1 || kinds[Other] != 1 || data != want || walk.Records != 7 {
			t.Error(kinds, data, walk.Records)
		}
	}
	if _, kind, err := b.store.Open("nothing/at/all"); kind != 0 || err != nil {
		t.Error(kind, err)
	}
	list, err := b.store.Digests([][]byte{[]byte("a/f"), []byte("l"), []byte("fifo")})
	if want := sha256.Sum256([]byte("hello")); err != nil || string(list[0]) != string(want[:]) || list[1] != nil || list[2] != nil {
		t.Error(list, err)
	}
}
